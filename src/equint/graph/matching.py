"""Channels amplified until they meet the dominant one: the groups in order, whatever the rule for their factors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Array, Model, Name
from ..ops.activations import has_shared_bound
from ..ops.attributes import clip_bounds
from .channels import Channels, Group, rescale, solve
from .dominance import Extremes, Limits

Rule = Callable[[Extremes, Group, Array], tuple[Array, Limits]]
"""What to multiply a group's channels by, given the scales so far, and the limits that this was chosen under."""
HOLDS = ("weights", "activations", "clips", "s_max")


def matched(model: Model, rule: Rule, method: str, s_max: float, shared_clips: bool) -> Model:
    """The model with every group's channels multiplied as `rule` says.

    Groups are visited by the last that give to them, so that all that feeds those was scaled before; where groups
    feed each other (residual sums), the sum comes last.
    """
    source = method.replace("-", "_")
    clips = bounded(model) if shared_clips else frozenset()
    channels = solve(model, priced=clips)
    if not channels.groups:
        facts = {"method": method, "why": channels.why}
        return model.noted(Event(EventKind.NOT_MATCHED, "", facts, source, warning=True))
    extremes, scales = Extremes(model, channels, clips), np.ones(channels.size)
    limited, unknown, reached = np.zeros(len(HOLDS), np.int64), list[Group](), 0
    place = {name: k for k, node in enumerate(model.graph.nodes) for name in (node.label, node.outputs[0])}
    for group in sorted(channels.groups, key=lambda group: max(place[n] for n in (*group.producers, *group.norms))):
        if not extremes.known(group):
            unknown.append(group)
            continue
        factors, limits = rule(extremes, group, scales)
        limited += np.bincount(_holds(limits, s_max), minlength=len(HOLDS))
        reached += int(np.sum((factors < 1) & (limits.room <= 1)))
        scales[group.classes] = 1 / factors
    events = [_done(channels, scales, limited, len(unknown), method, source)]
    if unknown:
        skipped = {"groups": len(unknown), "why": "nothing tells how far its activations reach: no ranges"}
        events.append(Event(EventKind.CHANNELS_LEFT, unknown[0].tensors[0], skipped, source, warning=True))
    if reached:
        cost = {"channels": reached, "why": "what lay beyond the bound of their clip now passes"}
        events.append(Event(EventKind.CHANNELS_ATTENUATED, "", cost, source, warning=True))
    return rescale(model, channels, scales).noted(*events)


def bounded(model: Model) -> frozenset[Name]:
    """Outputs of clips to [lo ≤ 0, hi ≥ 0], one bound for all channels, whose ranges are known."""
    names = set[Name]()
    for node in model.graph.nodes:
        if has_shared_bound(model.graph, node) and node.outputs[0] in model.ranges:
            lo, hi = clip_bounds(model.graph, node)
            if lo is not None and hi is not None and lo <= 0 <= hi:
                names.add(node.outputs[0])
    return frozenset(names)


def _holds(limits: Limits, s_max: float) -> Array:
    """Which of `HOLDS` each channel meets first."""
    least = np.full_like(limits.kernel, 1 / s_max)
    return np.asarray(np.argmax(np.stack([limits.kernel, limits.activation, 1 / limits.room, least]), 0))


def _done(channels: Channels, scales: Array, limited: Array, unknown: int, method: str, source: str) -> Event:
    factors = 1 / scales[np.concatenate([g.classes for g in channels.groups])]
    facts: dict[str, str | float] = {
        "method": method,
        "groups": len(channels.groups) - unknown,
        "channels": int(limited.sum()),
        "left at 1": int(np.sum(factors == 1)),
        "least scale": float(factors.min()),
        "largest scale": float(factors.max()),
    }
    facts |= {f"held by {what}": int(count) for what, count in zip(HOLDS, limited, strict=True)}
    return Event(EventKind.MATCHED, "", facts, source)
