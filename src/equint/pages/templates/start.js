/* Begins with the layer of most noise of its own. */
if (layers.length) {
  let worst = 0;
  const known = (noise) => noise && (noise.both ?? noise.weights ?? noise.activations);
  const own = (l) => known(l.measured) ?? known(l.predicted) ?? Infinity;
  layers.forEach((l, k) => {
    if (own(l) < own(layers[worst])) worst = k;
  });
  choose(worst);
}
