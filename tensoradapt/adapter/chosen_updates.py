"""Choose which updates of an adapter a layer adds.

A Gate says whether they are added, to which samples, and multiplied by what; a TaskChoice says which task's they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.places import Places
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import At
from tensoradapt.networks.modes import only


class Samples:
    """The samples of a batch, grouped by what is named for each, so that each group is computed by itself.

    Groups and their samples keep the order in which they come first, so a batch that is in groups is cut, not copied.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        by_name: dict[str | None, list[int]] = {}
        for i, name in enumerate(names):
            by_name.setdefault(name, []).append(i)
        self.number = {name: i for i, name in enumerate(by_name)}  # the number of each group
        self.sizes = [len(rows) for rows in by_name.values()]
        order = [i for rows in by_name.values() for i in rows]
        back = sorted(order, key=order.__getitem__)  # where the samples of the batch are among the grouped ones
        self.order = (tuple(order), tuple(back)) if order != sorted(order) else None
        self.places = Places()

    def __len__(self) -> int:
        return sum(self.sizes)

    def by_group(self, batch: Tensor) -> Tensor:  # (samples, ...)
        """Return the samples, group after group; raise TensorAdaptError for another number of them."""
        if batch.ndim == 0 or len(batch) != len(self):
            raise wrong_batch(len(self), batch)
        return batch if self.order is None else batch.index_select(0, self.places.tensor(self.order[0], batch.device))

    def as_given(self, batch: Tensor) -> Tensor:  # (samples, ...)
        """Return the samples of ``by_group`` in the batch's own order."""
        return batch if self.order is None else batch.index_select(0, self.places.tensor(self.order[1], batch.device))

    def split(self, batch: Tensor) -> list[Tensor]:  # (samples, ...) -> for each group (samples, ...)
        """Return the samples of each group; raise TensorAdaptError for another number of them."""
        return list(self.by_group(batch).split(self.sizes))

    def join(self, groups: Sequence[Tensor]) -> Tensor:  # (samples, ...)
        """Return the batch of these groups, in its own order."""
        return self.as_given(torch.cat(tuple(groups)))


def wrong_batch(n_samples: int, batch: Tensor) -> TensorAdaptError:
    """Make the error for a batch of another number of samples than adapters were named for."""
    return TensorAdaptError(
        f"use(model, samples=) was given {n_samples} samples and the batch has {len(batch) if batch.ndim else 'none'}; "
        "give one each (generate repeats each sample num_beams times, or num_return_sequences)"
    )


class Gate(nn.Module):
    """Whether layers add an adapter's updates, to which samples and times what; use, merge and disabled set it.

    Wrapped layers read it. It is a module, so that ``share`` moves with the adapter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled, self.merged = True, False
        self.samples: Samples | None = None  # a batch in groups; one group is the adapter's
        self.group = 0  # the number of that group
        self.by_share = False  # True where updates are multiplied by ``share``
        self.share: Tensor  # a number, or one for each sample of the batch
        self.register_buffer("share", torch.ones(()), persistent=False)

    @property
    def live(self) -> bool:
        """Whether layers that use the adapter are to add its updates: enabled, and not merged into their weights."""
        return self.enabled and not self.merged

    @property
    def per_sample(self) -> bool:
        """Whether some samples of the batch get the updates and others do not."""
        return self.samples is not None or (self.by_share and self.share.ndim > 0)

    def own(self, batch: Tensor) -> Tensor:  # (samples, ...) -> (samples of the adapter's group, ...)
        """Return the adapter's own samples."""
        return batch if self.samples is None else self.samples.split(batch)[self.group]

    def times_share(self, update: Tensor) -> Tensor:
        """Multiply an update by the share; the shape stays."""
        if not self.by_share:
            return update
        if self.share.ndim and len(self.share) != len(update):
            raise wrong_batch(len(self.share), update)
        share = self.share.to(update)
        return (share.reshape(-1, *[1] * (update.ndim - 1)) if share.ndim else share) * update


class TaskChoice:
    """The selected task of a plan with ``tasks``: a value of each runtime mode. Without tasks there is none to select.

    ``places`` are all that can be selected, as positions in tensors; ``names`` are those of each mode's values.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = dict(names)
        every = itertools.product(*(range(len(values)) for values in names.values()))
        self.places: Sequence[At] = tuple(dict(zip(names, place, strict=True)) for place in every)
        # indices by mode, each one number or one for each sample of the batch, and with them the index of a place
        self.chosen: dict[str, int | Tensor] = {mode: 0 for mode, values in names.items() if len(values) == 1}
        self.selected: int | Tensor | None = None if names else 0
        self._rows: dict[tuple[Samples | None, torch.device], tuple[list[Tensor], Tensor]] = {}

    def select(self, **given: Any) -> None:
        """Select values of modes by name or index, or a sequence with one for each sample; others stay selected.

        The old choice stays on errors.
        """
        if not self.names:
            raise TensorAdaptError(
                "the adapter was planned without tasks, so none can be selected; plan with tasks= and a layout with "
                "task"
            )
        if odd := [mode for mode in given if mode not in self.names]:
            raise TensorAdaptError(f"the adapter has no mode {odd[0]!r} to select{did_you_mean(odd[0], self.names)}")
        chosen = {**self.chosen, **{mode: self._indices(mode, value) for mode, value in given.items()}}
        if missing := [mode for mode in self.names if mode not in chosen]:
            first = ", ".join(f"{mode}={values[0]!r}" for mode, values in self.names.items())
            of = ", ".join(self.names[missing[0]])
            raise TensorAdaptError(f"no {missing[0]} is selected; give one of {of} too, as in select({first})")
        several = {mode: len(value) for mode, value in chosen.items() if isinstance(value, Tensor)}
        if len(set(several.values())) > 1:
            n_each = " and ".join(f"{n} {mode}s" for mode, n in several.items())
            raise TensorAdaptError(f"{n_each} are selected; expected one of each for every sample, or one for all")
        number: int | Tensor = 0
        for mode, values in self.names.items():
            number = number * len(values) + chosen[mode]
        self.chosen, self.selected, self._rows = chosen, number, {}

    def _indices(self, mode: str, task: Any) -> int | Tensor:
        tasks, given = self.names[mode], _plain(task)
        last = len(tasks) - 1
        several = isinstance(given, Sequence) and not isinstance(given, str)
        wanted = list(map(_plain, given)) if several else [given]
        if not wanted or any(isinstance(name, bool) or not isinstance(name, str | int) for name in wanted):
            raise TensorAdaptError(
                f"{mode} is {task!r}; expected a name or index of {', '.join(tasks)} (0 to {last}), or a sequence with "
                "one for each sample"
            )
        if wrong := [name for name in wanted if name not in tasks and name not in range(len(tasks))]:
            valid = f"{did_you_mean(wrong[0], tasks)}, or their indices 0 to {last}"
            raise TensorAdaptError(f"{mode} {wrong[0]!r} is not in this adapter{valid}")
        numbers = [tasks.index(name) if isinstance(name, str) else name for name in wanted]
        return torch.tensor(numbers) if several else numbers[0]

    def name(self) -> str | Mapping[str, str] | None:
        """Return the selected task, by mode where there are several, None without tasks.

        Raises TensorAdaptError where it is not exactly one.
        """
        at: Mapping[str, Any] = self.at()
        return only({mode: self.names[mode][i] for mode, i in at.items()}) if at else None

    def at(self, number: int | None = None) -> At:
        """Return the place of a number, by default the selected one; raise TensorAdaptError where that is not one."""
        chosen = self.selected if number is None else number
        if not isinstance(chosen, int):
            what = " and ".join(self.names)
            state = f"no {what} is selected" if self.selected is None else f"a {what} for each sample is selected"
            raise TensorAdaptError(
                f"{state}, and a site's update is of one {what}; call adapter.select("
                f"{', '.join(f'{mode}=...' for mode in self.names)}) with one of "
                f"{'; '.join(', '.join(values) for values in self.names.values())}"
            )
        return self.places[chosen]

    @property
    def by_sample(self) -> bool:
        """Whether a task is selected for each sample of the batch."""
        return isinstance(self.selected, Tensor)

    def samples(self, x: Tensor, gate: Gate) -> tuple[list[Tensor], Tensor] | None:
        """Return for each task the indices of its samples in ``x``, and where each sample is among these.

        None where one task is for all of them. ``x`` has the samples of the gate's group, and a task was selected for
        each sample of the whole batch. The indices are made once for a choice, on the device of ``x``; those of an
        earlier ``use(samples=)`` are dropped.
        """
        if not isinstance(self.selected, Tensor):
            return None
        n = len(x) if gate.samples is None else len(gate.samples)
        if len(self.selected) != n:
            mode = next(mode for mode, value in self.chosen.items() if isinstance(value, Tensor))
            raise TensorAdaptError(
                f"select({mode}=) was given {len(self.selected)} {mode}s and the batch has {n} samples; give one each"
            )
        if (key := (gate.samples, x.device)) not in self._rows:
            own = gate.own(self.selected)
            rows = [(own == task).nonzero().squeeze(1) for task in range(len(self.places))]
            self._rows = {kept: value for kept, value in self._rows.items() if kept[0] is gate.samples}
            with torch.inference_mode(False):  # a pass with gradients uses them too
                self._rows[key] = [one.to(x.device) for one in rows], torch.cat(rows).argsort().to(x.device)
        return self._rows[key]


def _plain(value: Any) -> Any:
    """Convert arrays to lists, and scalars of numpy and torch to Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
