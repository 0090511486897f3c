"""A completion while it grows: what it was asked for, the tokens read so far, and whether it has ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxrl.config.shared import SampleSection
from jaxrl.types import Completion, StopReason


@dataclass(frozen=True)
class Request:
    """num_samples completions of one prompt; sample i depends on (the run's key, uid, first_index + i) alone.

    sample: how these are drawn, where not as the engine says (its means, `slots` to `kv_dtype`, are the
      engine's alone).
    keep: keep the caches of these rows for the turns that follow: a later request with the same uid and index
      whose prompt begins with all tokens of this one, prompt and completion, goes on from there.
    """

    prompt_ids: list[int]
    uid: int
    num_samples: int = 1
    first_index: int = 0
    sample: SampleSection | None = None
    keep: bool = False


@dataclass(frozen=True)
class Sampled:
    """One finished completion and where it belongs. `index` is that within its request."""

    request: int
    index: int
    completion: Completion


@dataclass(eq=False)
class Row:
    """One sample of a request.

    is_done: the device draws no more for it. stop_reason: the host has read its end.
    slot: its place in the decode batch, None before it has one.
    start: where its tokens begin in the cache there; they end at the batch's cursor, or at `end` when the row
      has ended and is kept.
    """

    request: int
    index: int
    prompt_ids: list[int]
    identity: tuple[int, int]  # (uid, index among all samples of that uid)
    sample: SampleSection
    stop_ids: tuple[int, ...]
    keep: bool
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    stop_reason: StopReason | None = None
    text: str | None = None
    is_done: bool = False
    slot: int | None = None
    start: int = 0
    end: int | None = None

    @property
    def is_live(self) -> bool:
        return not self.is_done and self.stop_reason is None

    @property
    def cached(self) -> list[int]:
        """Tokens whose keys and values are surely in the cache: the last one drawn is not."""
        return self.prompt_ids + self.ids[:-1]

    def length(self, cursor: int) -> int:
        """Positions of the cache that it takes."""
        if self.slot is None:
            return len(self.prompt_ids)
        return (cursor if self.end is None else self.end) - self.start

    def left(self, cursor: int) -> int:
        """Tokens that it may still draw, the first one drawn after the prompt, the last not in the cache."""
        if self.slot is None:
            return self.sample.max_new_tokens
        return self.sample.max_new_tokens - (cursor - self.start - len(self.prompt_ids) + 1)

    def take(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        excluded: Sequence[str],
        decode_text: Callable[[list[int]], str],
    ) -> None:
        """Append what was drawn, and set the stop reason if the row has ended with it."""
        before = len(self.ids)
        self.ids += tokens
        self.logprobs += logprobs
        self.excluded += excluded
        if self.sample.stop and self._find_stop_text(before, decode_text):
            return
        if self.ids[-1] in self.stop_ids:
            self.stop_reason = StopReason.EOS
        elif len(self.ids) >= self.sample.max_new_tokens:
            self.stop_reason = StopReason.MAX_TOKENS

    def completion(self, decode_text: Callable[[list[int]], str]) -> Completion:
        if self.text is None:
            self.text = decode_text(self.ids[:-1] if self.stop_reason is StopReason.EOS else self.ids)
        assert self.stop_reason is not None, "the row goes on"
        excluded = self.excluded if any(self.excluded) else None
        return Completion(self.prompt_ids, self.ids, self.logprobs, self.stop_reason, self.text, excluded)

    def _find_stop_text(self, before: int, decode_text: Callable[[list[int]], str]) -> bool:
        """A stop text cuts what was sampled after the token that completes it."""
        # tokens in which a stop text may have begun, generously
        margin = 16 + 4 * max(map(len, self.sample.stop))
        recent = decode_text(self.ids[max(0, before - margin) :])
        if not any(stop in recent for stop in self.sample.stop):
            return False
        for count in range(before + 1, len(self.ids) + 1):  # the shortest prefix that holds a stop text
            text = decode_text(self.ids[:count])
            places = [place for stop in self.sample.stop if (place := text.find(stop)) >= 0]
            if places:
                del self.ids[count:], self.logprobs[count:], self.excluded[count:]
                self.stop_reason, self.text = StopReason.STOP_STRING, text[: min(places)]
                return True
        return False
