"""Numbers of a config that runs have different values of, in the one program of all these runs.

In arithmetic a `Varied` is the value of the run that is computed, an array. In a comparison, by
which code checks and decides, it is what holds for all values; where they disagree the runs are not
one program, and that is an error.
"""

import operator
from collections.abc import Callable

import jax

from gen_jax.errors import InputError
from gen_jax.types import Array


@jax.tree_util.register_pytree_node_class
class Varied:
    """The `array` of one run, the `values` of all of them, and the `field`'s name."""

    def __init__(self, array: Array, values: tuple[float, ...], field: str):
        self._array, self._values, self._field = array, values, field

    def tree_flatten(self):
        """One leaf: what jitted functions are given."""
        return (self._array,), (self._values, self._field)

    @classmethod
    def tree_unflatten(cls, aux, children):
        """The inverse."""
        return cls(*children, *aux)

    def __jax_array__(self) -> Array:
        return self._array

    def _decide(self, holds: Callable[[float], bool]) -> bool:
        answers = {bool(holds(value)) for value in self._values}
        if len(answers) > 1:
            said = ', '.join(map(str, self._values))
            raise InputError(f'{self._field}: {said} make different programs; train them apart')
        return answers.pop()

    def __bool__(self) -> bool:
        return self._decide(bool)

    def __float__(self) -> float:
        raise InputError(f'{self._field}: this code needs one number; train these runs apart')

    def __str__(self) -> str:
        return ' or '.join(map(str, self._values))

    __hash__ = None


def _arithmetic(name: str) -> None:
    function = getattr(operator, name)

    def forward(self, other):
        return function(self._array, other)

    def backward(self, other):
        return function(other, self._array)

    setattr(Varied, f'__{name}__', forward)
    setattr(Varied, f'__r{name}__', backward)


def _comparison(name: str) -> None:
    function = getattr(operator, name)

    def compare(self, other):
        return self._decide(lambda value: function(value, other))

    setattr(Varied, f'__{name}__', compare)


for _name in ('add', 'sub', 'mul', 'truediv', 'pow'):
    _arithmetic(_name)
for _name in ('lt', 'le', 'gt', 'ge', 'eq', 'ne'):
    _comparison(_name)
Varied.__neg__ = lambda self: -self._array
Varied.__abs__ = lambda self: abs(self._array)
