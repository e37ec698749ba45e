"""Which channels each element of an operation's outputs reads, told from where NaN comes out.

NaN survives every sum, product, pooling and reshape. So the operation is run with NaN in some of the channels
that it reads, several times: run k has NaN in the channels whose number has bit k, and another run in those
whose number has not. An output element that hears exactly one of each such pair reads one channel, and the bits
spell its number; one that hears both reads several, which are then joined.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dsfp_env.channels.labels import distinct, pairs

MOST_WORK = 1 << 25  # elements: of an operation's outputs, times channels


class Probe:
    """Which channels each element of an operation's outputs reads, told from where NaN comes out.

    Args:
        hear: Runs the operation with NaN at some labels, ``[labels]`` bool, and says where NaN comes out.
        num_labels: There are, with 0.
        owners: The first labels of all that were given together, ascending.

    Attributes:
        joins: Pairs of channels ``[2, n]`` that one element reads both.
        mixes: Whether one element reads several channels of those that were given together.
    """

    def __init__(
        self,
        hear: Callable[[torch.Tensor], list[torch.Tensor]],
        num_labels: int,
        owners: torch.Tensor,
    ) -> None:
        self._hear = hear
        self._num_labels = num_labels
        self._owners = owners
        self.joins: list[torch.Tensor] = []
        self.mixes = False

    def labels(self, known: torch.Tensor, joined: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """Labels of the outputs; where an element reads several channels, these are joined and one stands for all.

        Args:
            known: The labels that the operation may read, ascending.
            joined: For each of them one that stands for all that it is joined with already.
        """
        if not any(bool(one.any()) for one in self._among(known)):
            raise TypeError("NaN does not come out")
        if (labels := self._decode(known, known)) is not None:
            return labels
        result: list[torch.Tensor] = []
        stands_for = joined()
        owners = torch.bucketize(stands_for, self._owners, right=True)
        for owner in owners.unique():
            group = owners == owner
            labels = self._decode(known[group], stands_for[group])
            if labels is None:
                labels = self._mixed(known[group], stands_for[group])
            for index, found in enumerate(labels if result else []):
                met = pairs(result[index], found)
                self.joins.append(met[:, (met > 0).all(0)])
                labels[index] = torch.where(result[index] > 0, result[index], found)
            result = labels
        return result

    def _decode(self, known: torch.Tensor, stands_for: torch.Tensor) -> list[torch.Tensor] | None:
        """Labels of the outputs if each element reads at most one of some labels, else None."""
        reached = self._among(known)
        members, numbers = stands_for.unique(return_inverse=True)
        codes = [torch.zeros(one.shape, dtype=torch.int64) for one in reached]
        for bit in range((len(members) - 1).bit_length()):
            has_bit = (numbers >> bit & 1).bool()
            heard = zip(codes, self._among(known[has_bit]), self._among(known[~has_bit]), reached, strict=True)
            for code, ones, zeros, any_of_them in heard:
                if (ones & zeros).any() or not torch.equal(ones | zeros, any_of_them):
                    return None
                code += ones.long() << bit
        return [torch.where(one, members[code], 0).float() for one, code in zip(reached, codes, strict=True)]

    def _mixed(self, known: torch.Tensor, stands_for: torch.Tensor) -> list[torch.Tensor]:
        """Labels of the outputs if elements read several of some labels.

        Exact, with one run per channel; but if the first is heard everywhere, or that would be too much work,
        all are joined.
        """
        self.mixes = True
        reached = self._among(known)
        labels = [torch.zeros(one.shape) for one in reached]
        members = stands_for.unique()
        for number, member in enumerate(members):
            heard = self._among(known[stands_for == member])
            everywhere = all(torch.equal(ones, one) for ones, one in zip(heard, reached, strict=True))
            work = len(members) * sum(one.numel() for one in reached)
            if number == 0 and (everywhere or work > MOST_WORK):
                self.joins.append(torch.stack([known, member.expand(len(known))]))
                return [one.float() * float(member) for one in reached]
            for found, ones in zip(labels, heard, strict=True):
                others = distinct(found[ones])
                self.joins.append(torch.stack([others, member.expand(len(others))]))
                found[ones & (found == 0)] = float(member)
        return labels

    def _among(self, labels: torch.Tensor) -> list[torch.Tensor]:
        """Where NaN comes out if these labels are NaN."""
        speaks = torch.zeros(self._num_labels, dtype=torch.bool)
        speaks[labels] = True
        return self._hear(speaks)
