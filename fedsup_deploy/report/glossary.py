"""What words of a page mean, for those who meet them for the first time."""

from typing import Final

#: A word, and what it means.
WORDS: Final = (
    ("supernet", "one set of weights that many networks share; clients train it together, each on its own images"),
    ("subnet", "a network that is part of the supernet, named by its arch_id: fewer channels, blocks, smaller kernels"),
    ("pick", "the subnet that a device gets"),
    ("front", "the subnets of which no other one that was tried is both faster and better"),
    ("tier", "a class of clients that train subnets of one size"),
    ("recalibration", "taking a subnet's own means and variances anew after it is cut out; without, it is less right"),
    (
        "gate",
        "what a file has to pass before there is a bundle: fp32 computes what the supernet does, int8 loses little",
    ),
    (
        "chosen by",
        "the images that candidates were compared on: the best of many is partly the luckiest, so that flatters",
    ),
    ("test images", "images that nothing was chosen by"),
    ("within noise", "a difference that other images of the same kind could turn around: at most 1.96 standard errors"),
    ("p50, assumed", "the median latency; published figures are taken for medians, as they do not say what they are"),
    ("NCHW, NHWC", "whether channels come before or after the rows and columns of an image in memory"),
    ("MACs", "multiply-accumulates: what a network computes for one image"),
    ("exact, evolution, random", "ways of searching: all that fits, children of the best so far, or a draw"),
    ("fp32, int8", "numbers of 32 bits, or of 8: a quarter of the size, and faster on some devices"),
)
