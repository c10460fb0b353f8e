"""The smallest spans of characters that two tokenizations of a text share."""

from __future__ import annotations

import numpy as np

#: The span of a token without characters, and of a token whose span the other side has not.
NO_SPAN = -1


def span_starts(*tokenizations: np.ndarray) -> np.ndarray:
    """The first character of each span, ascending, up to the last token's end.

    A text can be cut in front of a character that continues no token of any tokenization. The
    spans lie between neighboring cuts, so each token is in one span, and no span can be split.

    Args:
        tokenizations: (T, 2) ints, start and end of each token in characters.

    Examples:
        >>> words = np.array([[0, 3], [4, 11]])  # "the unhappy"
        >>> pieces = np.array([[0, 3], [3, 6], [6, 9], [9, 11]])  # "the", " un", "hap", "py"
        >>> span_starts(words, pieces).tolist()
        [0, 3]
    """
    ends = [int(tokens[:, 1].max()) for tokens in tokenizations if len(tokens)]
    steps = np.zeros(max(ends, default=0) + 2, np.int64)
    for tokens in tokenizations:
        long = tokens[tokens[:, 1] - tokens[:, 0] > 1]
        np.add.at(steps, long[:, 0] + 1, 1)
        np.add.at(steps, long[:, 1], -1)
    return np.flatnonzero(np.cumsum(steps)[: max(ends, default=0)] == 0)


def shared_spans(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The span of each token of two tokenizations, and the number of spans with tokens of both.

    Args:
        first, second: (T, 2) ints, start and end of each token in characters; equal for a token
            without characters, such as a special token.

    Returns:
        For each token its span, from 0 in the order of the text, or `NO_SPAN`; and their number.

    Examples:
        >>> words = np.array([[0, 0], [0, 3], [4, 11]])  # a special token, "the", "unhappy"
        >>> pieces = np.array([[0, 3], [3, 6], [6, 9], [9, 11]])  # "the", " un", "hap", "py"
        >>> shared_spans(words, pieces)
        (array([-1,  0,  1]), array([0, 1, 1, 1]), 2)
    """
    starts = span_starts(first, second)

    def numbered(tokens: np.ndarray) -> np.ndarray:
        places = np.searchsorted(starts, tokens[:, 0], "right") - 1
        return np.where(tokens[:, 1] > tokens[:, 0], places, NO_SPAN)

    one, other = numbered(first), numbered(second)
    shared = np.setdiff1d(np.intersect1d(one, other), NO_SPAN)
    numbers = np.full(len(starts) + 1, NO_SPAN)  # the last is that of NO_SPAN
    numbers[shared] = np.arange(len(shared))
    return numbers[one], numbers[other], len(shared)
