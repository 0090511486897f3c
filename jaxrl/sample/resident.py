"""The weights in the form of decoding, kept from one call of the sampler to the next until other arrays are
given.
"""

import weakref
from collections.abc import Callable

import jax

from jaxrl.model.decoding import DecodeWeights
from jaxrl.types import Tree


class Resident:
    """The decode weights of one engine, at most one set of them.

    They belong to the very arrays that they were made of, which are remembered by weak references: a new
    array is never taken for an old one that had its place in memory, and when one of the old ones is gone,
    the decode weights go, too. An update that takes its arrays over (donation) leaves them behind deleted:
    these are not the same any more.

    Args:
      make: (trainable, frozen) -> decode weights.
    """

    def __init__(self, make: Callable[[Tree, Tree], DecodeWeights]):
        self.make = make
        self.kept: list[DecodeWeights] = []  # none or one; the weak references know this list, not the engine
        self.made_of: list[weakref.ref] = []
        self.structure: jax.tree_util.PyTreeDef | None = None

    def release(self) -> None:
        """Let go of them."""
        self.kept.clear()
        self.made_of, self.structure = [], None

    def get(self, trainable: Tree, frozen: Tree) -> DecodeWeights:
        """The decode weights of these arrays: those that are there, or new ones in their place."""
        leaves, structure = jax.tree.flatten((trainable, frozen))
        # what is no array of jax (one of NumPy) can change in place, and nothing would tell
        will_last = all(isinstance(leaf, jax.Array) and not leaf.is_deleted() for leaf in leaves)
        if self.kept and will_last and structure == self.structure:
            pairs = zip(self.made_of, leaves, strict=True)
            if all(known() is leaf for known, leaf in pairs):
                return self.kept[0]
        self.release()  # before others are made: there are never two
        weights = self.make(trainable, frozen)
        if will_last:
            kept = self.kept = [weights]
            self.made_of = [weakref.ref(leaf, lambda _: kept.clear()) for leaf in leaves]
            self.structure = structure
        return weights
