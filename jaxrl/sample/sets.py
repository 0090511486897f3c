"""What a filter left out when a token was drawn: kept as text on the host, as bits on devices.

Top-k, top-p and min-p change the distribution that a token is drawn from, and the trainer has to renormalise
over the very ids that were kept: those of a threshold on its own logprobs would be others as soon as the
policy has moved, and by rounding even before. A bit for each id says it exactly, whatever the filter was, in
an array of fixed shape and a thirty-second of the logits' size. Most bits are alike, so that on the host, in
replay buffers and in checkpoints a set takes some ten bytes.
"""

import base64
import zlib

import numpy as np

from jaxrl.config.shared import SampleSection

NOTHING = ""  # the text of an empty set: nothing was left out


def set_bytes(sample: SampleSection, vocab_size: int) -> int:
    """Bytes of one token's bits; 0 where nothing is filtered, so that no sets are needed."""
    return -(-vocab_size // 8) if sample.is_filtered else 0


def to_text(bits: np.ndarray) -> str:
    """[E] uint8, bits as `ops/sampling.py: sample_with_sets` gives them -> ASCII: which bytes hold something
    that was kept (all others are 255), then those bytes. Before the compression, which is slow on long
    arrays, that is an eighth of the length.
    """
    holds = bits != 255
    packed = np.packbits(holds).tobytes() + bits[holds].tobytes()
    return base64.b64encode(zlib.compress(packed, 1)).decode()


def to_bits(text: str, num_bytes: int) -> np.ndarray:
    """The [num_bytes] uint8 that `to_text` was given; of NOTHING, zeros.

    Raises:
      ValueError: a set over a vocabulary of another size.
    """
    if text == NOTHING:
        return np.zeros(num_bytes, np.uint8)
    packed = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    ahead = -(-num_bytes // 8)
    holds = np.unpackbits(packed[:ahead], count=num_bytes).astype(bool)
    if len(packed) != ahead + holds.sum():
        raise ValueError(
            f"a set of excluded ids is none of a vocabulary of {num_bytes} bytes of bits; it was sampled "
            "from another model"
        )
    bits = np.full(num_bytes, 255, np.uint8)
    bits[holds] = packed[ahead:]
    return bits
