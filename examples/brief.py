"""A reward of one's own on a task that there is: its reward, less a little for every word.

task: {name: tiny, game: count, reward: examples/brief.py}
"""

from jaxrl.tasks.rewards import weighted


def reward(problem, text, verdict):
    parts = {"task": verdict.reward, "words": len(text.split())}
    return weighted(parts, {"task": 1.0, "words": -0.01}, verdict.correct, verdict.format_ok)
