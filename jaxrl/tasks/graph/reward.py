"""The reward of "TRACE: ... ANSWER: B" completions: right answers, and traces that name the path.

Nothing of graphs or files.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from jaxrl.types import Problem, Verdict

TRACE = re.compile(r"TRACE:\s*(.+?)(?=ANSWER:|$)", re.DOTALL)
ANSWER = re.compile(r"ANSWER:\s*([A-D])")

CORRECT, WRONG = 1.0, -2.0
FORMAT_FAILURE = -2.0
PATH_WEIGHT = 0.5
MIN_HITS = 2
MAX_MENTIONS = 2
SPAM_PENALTY = 0.5


@dataclass(frozen=True)
class TraceReward:
    """Judges a completion against the answer and the path of its problem.

        total = R_corr + 0.5 R_path - P_spam

    R_corr: 1 if the first `ANSWER:` names the right option, else -2. R_path: the share of the path's entities
      that the trace names, 0 if it names fewer than two. P_spam: 0.5 if any entity of the graph, on the path
      or not, occurs more than twice in the trace. Without a `TRACE:`, or an `ANSWER:` with one of the letters
      A to D, the total is -2.
    Range: -2.5 (worse than no format at all: wrong, no path, spam) to 1.5.

    It is a small object of its own, so that verifier processes receive this and not the task with its
    question lists.

    Args:
      entities: all entities of the graph.
      answer_pays: `alone`, or `with_path`: R_corr is 1 only where the trace also names the entities of the
        path, no others, and the path's last one last. One answer in four is right by luck, and what a lucky
        one earns drowns what the way there is worth. `correct` is the answer's in either case.
      match: `word` counts an entity where it stands as a whole word (the longest one, where several begin at
        a place); `substring` counts it inside longer words too.
    Source: multi-hop-reasoning (MIT). Departure: its text asks for whole words but its program counts
      substrings, so that `DiskFull` in a trace also counts for an entity `Disk`; `word` is our default,
      `substring` is the program's way.
    """

    entities: tuple[str, ...]
    match: str = "word"
    answer_pays: str = "alone"

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """Verdict on one completion; `parts` holds correctness, path_coverage, path_reward and spam_penalty
        (unweighted).
        """
        trace, answer = TRACE.search(text), ANSWER.search(text)
        if trace is None or answer is None:
            missing = " and ".join(
                name for name, found in (("TRACE", trace), ("ANSWER", answer)) if found is None
            )
            parts = {"correctness": WRONG, "path_coverage": 0.0, "path_reward": 0.0, "spam_penalty": 0.0}
            return Verdict(
                FORMAT_FAILURE, correct=False, format_ok=False, parts=parts, detail=f"no {missing}"
            )

        mentions = self.mentions(trace.group(1))
        path, end = set(problem.data["path_star"]["entities"]), problem.data["path_star"]["entities"][-1]
        hits = sum(mentions[entity] > 0 for entity in path)
        correct = answer.group(1) == problem.data["answer_star"]
        coverage = hits / len(path)
        is_earned = correct and (
            self.answer_pays == "alone" or (set(mentions) == path and self.last(trace.group(1)) == end)
        )
        parts = {
            "correctness": CORRECT if is_earned else WRONG,
            "path_coverage": coverage,
            "path_reward": coverage if hits >= MIN_HITS else 0.0,
            "spam_penalty": SPAM_PENALTY if max(mentions.values(), default=0) > MAX_MENTIONS else 0.0,
        }
        reward = parts["correctness"] + PATH_WEIGHT * parts["path_reward"] - parts["spam_penalty"]
        detail = (
            f"answer {answer.group(1)}, right is {problem.data['answer_star']}; {hits} of {len(path)} path "
            "entities"
        )
        return Verdict(reward, correct=correct, format_ok=True, parts=parts, detail=detail)

    def mentions(self, trace: str) -> Counter[str]:
        """How often each entity occurs in the trace; entities that do not occur are left out."""
        if self.match == "substring":
            return Counter({entity: trace.count(entity) for entity in self.entities if entity in trace})
        return Counter(_whole_words(self.entities).findall(trace))

    def last(self, trace: str) -> str:
        """The entity that ends last in the trace, the longest if several do; empty if there is none."""
        if self.match == "substring":
            ends = {entity: trace.rfind(entity) + len(entity) for entity in self.entities if entity in trace}
            return max(ends, key=lambda entity: (ends[entity], len(entity)), default="")
        return (_whole_words(self.entities).findall(trace) or [""])[-1]


@lru_cache(maxsize=8)
def _whole_words(entities: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(entities, key=lambda entity: (-len(entity), entity))
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
