"""The tokenizer that is made for a task, and whether it gives the task's own texts back."""

from jaxrl.data.chat import render_for_training
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.types import Message


def tokenizer_that_gives_every_text_back(task):
    """Made on the task's texts; every demonstration of the train and val splits comes back from its trained
    ids.
    """
    tokenizer = train_tokenizer(task.texts(), task.phrases())
    for problem in task.problems("train") + task.problems("val"):
        text = task.demonstration(problem)
        ids, mask = render_for_training(
            tokenizer, [*problem.messages, Message(role="assistant", content=text)]
        )
        assert tokenizer.decode([token for token, is_trained in zip(ids, mask) if is_trained][:-1]) == text
    return tokenizer
