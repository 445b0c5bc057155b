"""Vary a network: frozen factors, and factors that leave out index modes, over which they are shared. No torch.

Every parameterization takes both, as they change labels and marks of what ``build`` returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.network import Draws, Factor, Network

DRAWN = "drawn"
SET: Mapping[str, Draws] = {"ones": "constant", "identity": "identity", "shift": "shift"}  # what a factor can be set to
HOWS = (DRAWN, *SET)
Frozen = Mapping[str, str] | Sequence[str]  # factors, or how each is frozen
Shared = Mapping[str, Sequence[str]]  # the index modes that a factor leaves out


def hows(frozen: Frozen | None) -> dict[str, str]:
    """Return how each factor is frozen; one that is only named is drawn."""
    return dict(frozen) if isinstance(frozen, Mapping) else dict.fromkeys(frozen or (), DRAWN)


def modes(shared: Mapping[str, str | Sequence[str]] | None, *others: Shared) -> dict[str, tuple[str, ...]]:
    """Return the index modes that each factor leaves out, of several such mappings together."""
    found: dict[str, tuple[str, ...]] = {}
    for mapping in (shared or {}, *others):
        for name, given in mapping.items():
            listed = (given,) if isinstance(given, str) else given
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *listed)))
    return found


def varied(network: Network, frozen: Frozen = (), shared: Shared | None = None) -> Network:
    """Return the network with those factors frozen or shared; factors and modes that it lacks are ignored.

    A trained factor that is frozen as "drawn" is drawn as before, for each tensor by itself; one from the base weights
    is stored. Raises TensorAdaptError for a zero factor that is frozen, and for a mode that is no index mode or that no
    factor would have.

    >>> import tensoradapt as ta
    >>> network = ta.plan("tiny-random-bert", "lora", "layer : out : in", rank=2).groups[0].network
    >>> varied(network, ["A"]).n_params, varied(network, shared={"A": ["layer"]}).equation
    (144, 'A[r in] B[layer out r] -> layer out in')
    """
    how, left = hows(frozen), dict(shared or {})
    _check_frozen(network, how)
    _check_shared(network, left)
    factors = (_without(factor, left.get(factor.name, ())) for factor in network.factors)
    return replace(network, factors=tuple(_frozen(f, how[f.name]) if f.name in how else f for f in factors))


def check_names(networks: Iterable[Network], frozen: Frozen, shared: Shared) -> None:
    """Raise TensorAdaptError for a factor that none of the networks has, and for a mode that the factor lacks in all.

    The networks are those before they are varied.
    """
    index: dict[str, list[str]] = {}
    for network in networks:
        for factor in network.factors:
            own = [mode.name for mode in network.layout.index if mode.name in factor.labels]
            index[factor.name] = [*index.get(factor.name, []), *own]
    for field, names in (("frozen", frozen), ("shared", shared)):
        if unknown := [name for name in names if name not in index]:
            raise TensorAdaptError(f"{field} names {unknown[0]!r}, no factor{did_you_mean(unknown[0], list(index))}")
    for name, left in shared.items():
        held = list(dict.fromkeys(index[name]))
        if absent := [mode for mode in left if mode not in held]:
            none = (
                "; it has none over these layouts: the matrices that share it are tied first, as in 'layer : out : in'"
            )
            advice = did_you_mean(absent[0], held) if held else none
            raise TensorAdaptError(f"shared names {absent[0]!r} for factor {name!r}, no index mode of it{advice}")


def _check_frozen(network: Network, how: Mapping[str, str]) -> None:
    zero, trained = network.zero.name, [factor.name for factor in network.factors if factor.trainable]
    if zero not in how:
        return
    if not (others := [name for name in trained if name != zero and name not in how]):
        raise TensorAdaptError(
            f"frozen names every trained factor of {network.equation}, so that nothing would be trained; expected at "
            f"least {zero!r} to be left out"
        )
    raise TensorAdaptError(
        f"frozen names {zero!r}, the factor that starts at zero, so that the update would stay zero; freeze "
        f"{' or '.join(map(repr, others))} instead"
    )


def _check_shared(network: Network, left: Shared) -> None:
    index = {mode.name for mode in network.layout.index}
    for factor in network.factors:
        if odd := [mode for mode in left.get(factor.name, ()) if mode in factor.labels and mode not in index]:
            raise TensorAdaptError(
                f"shared names {odd[0]!r} for factor {factor.name!r}, which is no index mode of layout "
                f"{str(network.layout)!r}; expected {' or '.join(sorted(index)) or 'a layout with index modes'}"
            )
    kept = {x for factor in network.factors for x in factor.labels if x not in left.get(factor.name, ())}
    if lost := [mode.name for mode in network.layout.index if mode.name not in kept]:
        holders = [factor.name for factor in network.factors if lost[0] in factor.labels]
        raise TensorAdaptError(
            f"shared leaves {lost[0]!r} out of {', '.join(holders)}, all that have it; expected one to keep it: "
            "an update that is the same everywhere has that mode in no factor"
        )


def _without(factor: Factor, modes: Sequence[str]) -> Factor:
    return replace(factor, labels=tuple(label for label in factor.labels if label not in modes))


def _frozen(factor: Factor, how: str) -> Factor:
    if how in SET:
        return replace(factor, trainable=False, source="set", paper=(SET[how], 1.0))
    if factor.trainable and factor.source == "draw":
        return replace(factor, trainable=False, source="own")
    return replace(factor, trainable=False)
