"""Which convolutions of a compiled program XLA's CPU backend runs in naive loops."""


def naive_convolutions(program: str) -> list[str]:
    """The lines of a program's text whose kernel is turned around.

    That is what becomes of one that is larger than the image that it slides over: XLA swaps the
    two, and turns what it now calls the kernel.
    """
    convolutions = [line for line in program.splitlines() if ' convolution(' in line]
    return [line for line in convolutions if 'rhs_reversal' in line]
