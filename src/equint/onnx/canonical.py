"""One form for what exporters write in many: exact rewrites that later passes can rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..ir.model import Array, Graph, Name, Node
from ..ops.attributes import pad_widths


def canonical(graph: Graph) -> Graph:
    """Gemm without alpha, beta and transA; MatMul with its bias; zero Pads merged into convolutions; full operands;
    vectors as rows; means over windows with gaps as convolutions.

    Example:
        >>> gemm = Node("Gemm", ("x", "w", "b"), ("y",), {"alpha": 2.0, "beta": 0.5})
        >>> consts = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
        >>> graph = canonical(Graph((gemm,), consts, ("x",), ("y",), {"x": ("N", 2), "y": ("N", 3)}))
        >>> [float(graph.consts[i].flat[0]) for i in graph.nodes[0].inputs[1:]]
        [2.0, 0.5]
    """
    graph = _rewritten(_rewritten(_rewritten(_scalar_bounds(graph), _full_operands), _gemm), _computed_bias)
    graph = _rewritten(graph, _single_row)
    return _merged_pads(_biased_matmul(_rewritten(_rewritten(graph, _dilated_average), _counted_pads)))


Edit = tuple[list[Node], dict[Name, Array]]


def _rewritten(graph: Graph, edits: Callable[[Graph, Node], Edit | None]) -> Graph:
    """Replace each node by what `edits` makes of it (None: leave it)."""
    nodes, consts = list[Node](), dict[Name, Array]()
    for node in graph.nodes:
        made, added = (None if node.domain else edits(graph, node)) or ([node], {})
        nodes += made
        consts |= added
    return graph.with_nodes(nodes, consts)


def _scalar_bounds(graph: Graph) -> Graph:
    """Clip bounds of one element as scalars, which is what the standard asks for."""
    bounds = {i for node in graph.nodes if node.op == "Clip" and not node.domain for i in node.inputs[1:] if i}
    vectors = {i: graph.consts[i] for i in bounds if i in graph.consts and graph.consts[i].shape == (1,)}
    only_clips = {i: a.reshape(()) for i, a in vectors.items() if all(u.op == "Clip" for u in graph.users(i))}
    return graph.with_consts(only_clips)


def _full_operands(graph: Graph, node: Node) -> Edit | None:
    """A Concat without the constants that hold nothing."""
    kept = tuple(i for i in node.inputs if i not in graph.consts or graph.consts[i].size)
    if node.op != "Concat" or not kept or len(kept) == len(node.inputs):
        return None
    return [replace(node, inputs=kept)], {}


def _single_row(graph: Graph, node: Node) -> Edit | None:
    """A vector times a constant matrix as a matrix of one row."""
    weight = graph.constant(node.inputs[1]) if node.op == "MatMul" else None
    if weight is None or weight.ndim != 2 or graph.rank(node.inputs[0]) != 1:
        return None
    x, y = node.inputs[0], node.outputs[0]
    row, product, axes = graph.fresh(f"{y}_row"), graph.fresh(f"{y}_product"), graph.fresh(f"{y}_axes")
    return [
        Node("Unsqueeze", (x, axes), (row,)),
        replace(node, inputs=(row, *node.inputs[1:]), outputs=(product,)),
        Node("Squeeze", (product, axes), (y,)),
    ], {axes: np.array([0])}


def _gemm(graph: Graph, node: Node) -> Edit | None:
    if node.op != "Gemm" or node.inputs[1] not in graph.consts or node.inputs[0] in graph.consts:
        return None
    a, b, c = (*node.inputs, "")[:3]
    y, alpha, beta = node.outputs[0], node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    before, after, consts = list[Node](), list[Node](), dict[Name, Array]()
    if node.attrs.get("transA", 0):
        flipped = graph.fresh(f"{y}_input")
        before.append(Node("Transpose", (a,), (flipped,), {"perm": [1, 0]}))
        a = flipped
    if alpha != 1:
        b = graph.fresh(f"{b}_{y}_alpha")
        consts[b] = graph.consts[node.inputs[1]] * np.float32(alpha)
    weight = graph.consts[node.inputs[1]]
    width = weight.shape[0 if node.attrs.get("transB", 0) else 1]
    value = graph.constant(c)
    if value is not None and (value.size == 1 or value.shape in ((width,), (1, width))):
        if beta != 1 or value.shape != (width,):
            c = graph.fresh(f"{c}_{y}_beta")
            consts[c] = np.broadcast_to(value.reshape(-1) * np.float32(beta), (width,)).copy()
    elif c:  # a bias that is computed or differs per row: add it afterwards
        product = graph.fresh(f"{y}_product")
        if beta != 1:
            factor, scaled = graph.fresh(f"{y}_factor"), graph.fresh(f"{y}_addend")
            consts[factor] = np.asarray(beta, np.float32)
            after.append(Node("Mul", (c, factor), (scaled,)))
            c = scaled
        after.append(Node("Add", (product, c), (y,)))
        y, c = product, ""
    attrs = {"transB": int(node.attrs.get("transB", 0))}
    return [*before, replace(node, inputs=(a, b, *([c] if c else [])), outputs=(y,), attrs=attrs), *after], consts


def _computed_bias(graph: Graph, node: Node) -> Edit | None:
    """A convolution of constant weights keeps no computed bias: it is added afterwards."""
    if node.op not in ("Conv", "ConvTranspose") or len(node.inputs) < 3 or node.inputs[1] not in graph.consts:
        return None
    bias, y = node.inputs[2], node.outputs[0]
    if not bias or bias in graph.consts:
        return None
    product, column, sizes = (graph.fresh(f"{y}_{what}") for what in ("product", "bias", "bias_shape"))
    shape = np.array([1, -1] + [1] * (graph.consts[node.inputs[1]].ndim - 2), np.int64)
    made = [
        replace(node, inputs=node.inputs[:2], outputs=(product,)),
        Node("Reshape", (bias, sizes), (column,)),
        Node("Add", (product, column), (y,), name=node.name and f"{node.name}_bias"),
    ]
    return made, {sizes: shape}


def _dilated_average(graph: Graph, node: Node) -> Edit | None:
    """An AveragePool whose windows have gaps, as a convolution of each channel: no runtime averages so in integers.

    Not where windows at the border count fewer values, nor of so many channels as nothing tells.
    """
    shape, kernel = graph.shapes.get(node.inputs[0]) or (), node.attrs.get("kernel_shape", ())
    channels = shape[1] if len(shape) > 2 else None
    if node.op != "AveragePool" or not isinstance(channels, int) or max(node.attrs.get("dilations", (1,))) == 1:
        return None
    padded = any(node.attrs.get("pads", ())) or node.attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET")
    if node.attrs.get("ceil_mode", 0) or (padded and not node.attrs.get("count_include_pad", 0)):
        return None
    weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
    name = graph.fresh(f"{node.outputs[0]}_mean")
    attrs = {k: v for k, v in node.attrs.items() if k not in ("ceil_mode", "count_include_pad")}
    return [replace(node, op="Conv", inputs=(node.inputs[0], name), attrs={**attrs, "group": channels})], {name: weight}


def _counted_pads(graph: Graph, node: Node) -> Edit | None:
    """An AveragePool that counts its padding, and rounds its size up, behind a Pad: integer kernels miscount there.

    Windows that begin in the padding behind are none of its own, but are behind a Pad: where such may be, it stays.
    """
    counts = node.attrs.get("count_include_pad", 0) and node.attrs.get("ceil_mode", 0)
    if node.op != "AveragePool" or not counts or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    pads = node.attrs.get("pads", [])
    attrs = {k: v for k, v in node.attrs.items() if k not in ("pads", "count_include_pad", "auto_pad")}
    if not any(pads):  # nothing is padded, and what hangs over the end never counts
        return [replace(node, attrs=attrs)], {}
    padded, widths = (graph.fresh(f"{node.outputs[0]}_{what}") for what in ("padded", "pads"))
    half = len(pads) // 2
    value = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    if _begins_behind(graph, node):
        return None
    pool = replace(node, inputs=(padded,), attrs=attrs)
    return [Node("Pad", (node.inputs[0], widths), (padded,)), pool], {widths: value}


def _begins_behind(graph: Graph, node: Node) -> bool:
    """Whether the last window that a pool's size has room for begins in the padding behind, along any dimension."""
    sizes, kernel, pads = graph.shapes.get(node.inputs[0]), node.attrs["kernel_shape"], node.attrs["pads"]
    strides, half = node.attrs.get("strides", [1] * len(kernel)), len(kernel)
    for d, (k, step, begin, end) in enumerate(zip(kernel, strides, pads[:half], pads[half:], strict=True), 2):
        n = sizes[d] if sizes is not None else None
        last = -(-(n + begin + end - k) // step) * step if isinstance(n, int) else 0
        if end and (not isinstance(n, int) or n + begin <= last < n + begin + end):
            return True
    return False


def padded_outputs(graph: Graph) -> Graph:
    """ConvTransposes that ask for an output shape, and pools of a window behind all values, with pads that give it.

    Where a ConvTranspose's output is smaller than its input, ONNX's shape inference, which onnxruntime trusts when it
    loads a network, takes it for one of two dimensions. The same graph where there are none of known input sizes.

    Example:
        >>> attrs = {"output_shape": [5], "strides": [2]}
        >>> node = Node("ConvTranspose", ("x", "w"), ("y",), attrs)
        >>> graph = Graph((node,), {"w": np.ones((2, 2, 3), np.float32)}, ("x",), ("y",), {"x": ("N", 2, 6)})
        >>> padded_outputs(graph).nodes[0].attrs["pads"]
        [4, 4]
    """
    nodes = [_padded_output(graph, node) or _windows_inside(graph, node) or node for node in graph.nodes]
    return graph if nodes == list(graph.nodes) else graph.with_nodes(nodes)


def _padded_output(graph: Graph, node: Node) -> Node | None:
    asked, weight = node.attrs.get("output_shape"), graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op != "ConvTranspose" or node.domain or not asked or weight is None:
        return None
    n = weight.ndim - 2
    sizes = [s for s in graph.shapes.get(node.inputs[0], ())[2:] if isinstance(s, int)]
    if len(sizes) != n:
        return None
    ones = np.ones(n, np.int64)
    strides, dilations = (np.asarray(node.attrs.get(key) or ones) for key in ("strides", "dilations"))
    extra = np.asarray(node.attrs.get("output_padding") or 0 * ones)
    reach = strides * (np.asarray(sizes) - 1) + extra + (np.asarray(weight.shape[2:]) - 1) * dilations + 1
    total = reach - np.asarray(asked[-n:])
    if (total < 0).any():
        return None
    less, more = total // 2, total - total // 2
    pads = (less, more) if node.attrs.get("auto_pad") == "SAME_UPPER" else (more, less)
    attrs = {k: v for k, v in node.attrs.items() if k not in ("output_shape", "auto_pad")}
    return replace(node, attrs={**attrs, "pads": [int(p) for p in np.concatenate(pads)]})


def _windows_inside(graph: Graph, node: Node) -> Node | None:
    """A pool that rounds its size up to a window behind all values, with pads that give the size it has instead.

    Such a window is left out by PyTorch and by onnxruntime, and counted by ONNX's shape inference.
    """
    sizes, kernel = (graph.shapes.get(node.inputs[0]) or ())[2:], node.attrs.get("kernel_shape", ())
    known = len(sizes) == len(kernel) > 0 and all(isinstance(n, int) for n in sizes)
    plain = node.attrs.get("auto_pad", "NOTSET") == "NOTSET" and not node.attrs.get("count_include_pad", 0)
    if (
        node.domain
        or node.op not in ("MaxPool", "AveragePool")
        or not node.attrs.get("ceil_mode", 0)
        or not known
        or not plain
    ):
        return None
    ones = [1] * len(kernel)
    strides, dilations = (node.attrs.get(key) or ones for key in ("strides", "dilations"))
    pads, behind = list(node.attrs.get("pads") or [0, 0] * len(kernel)), False
    for d, (n, taps, step, gap) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        before, after = pads[d], pads[len(kernel) + d]
        span = (taps - 1) * gap + 1
        count = -(-(int(n or 0) + before + after - span) // step) + 1
        over = (count - 1) * step >= int(n or 0) + before
        behind = behind or over
        pads[len(kernel) + d] = max((count - 1 - over) * step + span - int(n or 0) - before, 0)
    attrs = {k: v for k, v in node.attrs.items() if k != "ceil_mode"}
    return replace(node, attrs={**attrs, "pads": pads}) if behind else None


def ranked_scans(graph: Graph) -> Graph:
    """Scans whose bodies say the ranks of what they read and put out, where the graph knows them.

    onnxruntime runs no Scan without. In a network as it is written, inference finds them from the shapes of its
    inputs; in a part of it, or where sizes are computed, it cannot.
    """
    nodes = [_ranked_scan(graph, node) if node.op == "Scan" and not node.domain else node for node in graph.nodes]
    return graph if nodes == list(graph.nodes) else graph.with_nodes(nodes)


def _ranked_scan(graph: Graph, node: Node) -> Node:
    body, states = node.attrs["body"], len(node.inputs) - int(node.attrs["num_scan_inputs"])
    ranked = type(body)()
    ranked.CopyFrom(body)
    for infos, names in ((ranked.input, node.inputs), (ranked.output, node.outputs)):
        for k, (info, name) in enumerate(zip(infos, names, strict=False)):
            rank = graph.rank(name) if name else None
            if rank is None or info.type.tensor_type.HasField("shape"):
                continue
            info.type.tensor_type.shape.SetInParent()
            for _ in range(rank if k < states else rank - 1):
                info.type.tensor_type.shape.dim.add()
    return node if ranked == body else replace(node, attrs={**node.attrs, "body": ranked})


def _biased_matmul(graph: Graph) -> Graph:
    """MatMul by a constant followed by a constant Add becomes one operator (a Gemm on rank 2)."""
    adds = {node.outputs[0]: add for node, add in _matmul_adds(graph)}
    merged = {add.outputs[0] for add in adds.values()}

    def edit(graph: Graph, node: Node) -> Edit | None:
        if node.outputs[0] in merged:
            return [], {}
        if node.op != "MatMul" or node.inputs[1] not in graph.consts:
            return None
        add = adds.get(node.outputs[0])
        flat = graph.rank(node.inputs[0]) == 2 and graph.consts[node.inputs[1]].ndim == 2
        if add is None:
            return ([replace(node, op="Gemm", attrs={"transB": 0})], {}) if flat else None
        bias = next(i for i in add.inputs if i in graph.consts)
        width = graph.consts[node.inputs[1]].shape[-1]
        name = graph.fresh(f"{bias}_{node.outputs[0]}")
        value = np.broadcast_to(graph.consts[bias].reshape(-1), (width,)).copy()
        op, attrs = ("Gemm", {"transB": 0}) if flat else ("MatMul", {})
        return [replace(node, op=op, attrs=attrs, inputs=(*node.inputs, name), outputs=add.outputs)], {name: value}

    return _rewritten(graph, edit)


def _matmul_adds(graph: Graph) -> Iterator[tuple[Node, Node]]:
    for node in graph.nodes:
        weight = graph.constant(node.inputs[1]) if node.op == "MatMul" and not node.domain else None
        users = graph.users(node.outputs[0])
        if weight is None or weight.ndim != 2 or len(users) != 1 or node.outputs[0] in graph.outputs:
            continue
        add = users[0]
        bias = next((graph.consts[i] for i in add.inputs if i in graph.consts), None)
        if add.op != "Add" or bias is None:
            continue
        fits = bias.ndim <= (graph.rank(node.inputs[0]) or 0)
        if fits and (bias.size == 1 or (bias.shape[-1:] == weight.shape[1:] and bias.size == weight.shape[1])):
            yield node, add


def _merged_pads(graph: Graph) -> Graph:
    """A spatial zero Pad read by convolutions only becomes their padding."""
    pads = {node.outputs[0]: node for node in graph.nodes if _is_mergeable_pad(graph, node)}

    def edit(graph: Graph, node: Node) -> Edit | None:
        if node.outputs[0] in pads:
            return [], {}
        pad = pads.get(node.inputs[0]) if node.op == "Conv" else None
        if pad is None:
            return None
        rank = len(graph.shapes[pad.inputs[0]])
        widths = (pad_widths(graph, pad, rank) or [])[2:]
        own = node.attrs.get("pads", [0] * 2 * len(widths))
        both = [w[0] for w in widths] + [w[1] for w in widths]
        attrs = {k: v for k, v in node.attrs.items() if k != "auto_pad"}
        attrs["pads"] = [int(a + b) for a, b in zip(own, both, strict=True)]
        return [replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs=attrs)], {}

    return _rewritten(graph, edit)


def _is_mergeable_pad(graph: Graph, node: Node) -> bool:
    if node.op != "Pad" or node.domain or node.attrs.get("mode", "constant") != "constant":
        return False
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    value = graph.constant(name) if name else np.zeros(())
    rank = graph.rank(node.inputs[0])
    if value is None or np.any(value) or rank is None or node.outputs[0] in graph.outputs:
        return False
    widths = pad_widths(graph, node, rank)
    users = graph.users(node.outputs[0])
    return (
        widths is not None
        and not any(any(w) for w in widths[:2])
        and all(min(w) >= 0 for w in widths)
        and bool(users)
        and all(_can_take_pads(user, node.outputs[0]) for user in users)
    )


def _can_take_pads(node: Node, padded: Name) -> bool:
    unset = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return node.op == "Conv" and not node.domain and unset and padded not in node.inputs[1:]
