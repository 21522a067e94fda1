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
        "the images that candidates were compared on: the best of many is among the lucky ones, so on others it is "
        "probably worse",
    ),
    ("test images", "images that nothing was chosen by"),
    (
        "cannot be told apart",
        "two accuracies whose difference other images of the same kind could turn around: 0 is within the 95 % "
        "interval of the difference",
    ),
    ("profile", "what is known of a kind of device: what operations take there, its limits, which files it takes"),
    (
        "bundle",
        "a folder to put on a device: the network as files, what it was made from, and a program that checks it",
    ),
    ("variant", "one of the forms that a bundle has the network in, such as onnx-int8; a device needs one of them"),
    ("statistics", "means and variances of what flows through a network, which its norms take from images"),
    (
        "balanced accuracy",
        "the mean of the recalls of all classes, so that rare classes count as much as frequent ones",
    ),
    ("recall", "of the images of a class, the share that is answered rightly"),
    ("macro-F1", "the mean over classes of F1, which is high where recall is, and where few others are taken for it"),
    ("calibration error", "how far the confidence of answers is from how often they are right, in the mean"),
    (
        "p50, assumed",
        "a latency that half of the runs keep. A profile of published figures is taken to tell that one: whoever "
        "published them did not say which",
    ),
    (
        "9.3e-07 of 1e-05",
        "by how much outputs of a file and of the supernet differ at most, here 0.00000093 of their size, and how much "
        "the gate lets through, 0.00001",
    ),
    (
        "before recalibration",
        "how right the network is without recalibration. What a bundle holds is recalibrated, so this tells what that "
        "was worth, and asks for nothing",
    ),
    ("fedsup, e-fedsup", "ways to train: every client trains the whole supernet, or a subnet of the size of its tier"),
    ("NCHW, NHWC", "whether channels come before or after the rows and columns of an image in memory"),
    ("MACs", "multiply-accumulates: what a network computes for one image"),
    ("exact, evolution, random", "ways of searching: all that fits, children of the best so far, or a draw"),
    ("fp32, int8", "numbers of 32 bits, or of 8: a quarter of the size, and faster on some devices"),
)
