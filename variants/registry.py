"""The registry of variants: torch-free, lazy, with entry points for third-party packages.

A variant is a name plus a `VariantSpec`.  Adding one is a module with `register(registry)`: a built-in one is listed in
`BUILT_IN`, a third-party one in the entry-point group `medsam_bench.variants` of its package.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from variants.errors import VariantError, VariantWarning

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Hyperparameter = bool | int | float | str | tuple[int, ...]

ENTRY_POINT_GROUP = "medsam_bench.variants"
BUILT_IN = (
    "variants.dummy",
    "variants.litemedsam",
    "variants.swiftmedsam",
    "variants.swin_litemedsam",
    "variants.rep_medsam",
    "variants.efficientvit_sam",
    "variants.medsam",
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED = frozenset({"name", "checkpoint", "seed", "preprocess", "prompts", "prompt_rule"})
PROMPTS = ("box", "points", "scribble")
RULES: dict[str, tuple[str, ...]] = {
    "preprocess": ("longest-side", "gray-paper", "gray-code", "stretch"),
    "prompt_rule": ("paper", "code"),
    "prompts": ("box", "box+points", "box+scribble", "box+points+scribble"),
}
"""What a suite may set besides hyperparameters: how images and boxes become inputs, with the values known."""


@dataclass(frozen=True)
class VariantSpec:
    """A named, fully specified model; holds no torch object and can be pickled.

    Attributes:
        name: unique in the registry.
        family: variants of one family share their code.
        summary: one line for listings.
        source: paper and section, or where else the numbers come from.
        factory: `module:function`, called with the specification, gives the model; imported only when called.
        input_size: side of the square network input in pixels.
        params: number of parameters (a test verifies it); `None` if not known before the model is built.
        hyperparameters: all of them with their values; what a suite may override.
        preprocess: name of the rule in `variants.preprocess`; overridable like a hyperparameter.
        prompts: the prompts the variant is given at inference: `box`, `points`, `scribble`; overridable as text such
            as `box+points`.
        prompt_rule: name of the rule in `variants.prompts` that makes points and scribbles from boxes; overridable.
        loop: name of the 3D loop of the authors' script, in `harness.protocols.LOOPS`.
        needs_torch: whether the model is a torch module; others take and return numpy arrays.
        check: `module:function`, torch-free, called with the hyperparameters, raises `VariantError` if they do not
            fit together.
    """

    name: str
    family: str
    summary: str
    source: str
    factory: str
    input_size: int = 256
    params: int | None = None
    hyperparameters: dict[str, Hyperparameter] = field(default_factory=dict)
    preprocess: str = "longest-side"
    prompts: tuple[str, ...] = ("box",)
    prompt_rule: str = "paper"
    loop: str = "litemedsam-2024-05-23"
    needs_torch: bool = True
    check: str | None = None

    def override(self, overrides: Mapping[str, object]) -> VariantSpec:
        """This variant with some hyperparameters replaced; `params` becomes `None` if anything changed.

        Raises:
            VariantError: for an unknown hyperparameter, a value of the wrong type, or values that do not fit together.
        """
        values, rules = dict(self.hyperparameters), dict[str, Any]()
        for key, value in overrides.items():
            if key in RULES:
                rules[key] = _rule(self, key, value)
            elif key in values:
                values[key] = _typed(self.name, key, value, values[key])
            else:
                known = [*values, *RULES] if values else []
                raise VariantError(f"variant {self.name!r} has no hyperparameter {key!r}; {suggest(key, known)}")
        if self.check is not None:
            try:
                load_object(self.check)(values)
            except VariantError as error:
                raise VariantError(f"variant {self.name!r}: {error}") from error
        same = values == self.hyperparameters
        return replace(self, hyperparameters=values, params=self.params if same else None, **rules)


class Registry:
    """Variants by name, in the order of their registration."""

    def __init__(self) -> None:
        self._specs: dict[str, VariantSpec] = {}

    def add(self, spec: VariantSpec) -> None:
        """Register a variant.

        Raises:
            VariantError: if the name is taken or malformed, or a hyperparameter has a reserved name.
        """
        if not isinstance(spec, VariantSpec):
            raise VariantError(f"a registry takes VariantSpec objects, not {type(spec).__name__}")
        if not _NAME.fullmatch(spec.name):
            raise VariantError(f"variant name {spec.name!r} may hold only letters, digits, '_', '.' and '-'")
        if spec.name in self._specs:
            taken = self._specs[spec.name].factory
            raise VariantError(f"variant {spec.name!r} is registered twice: by {taken} and by {spec.factory}")
        reserved = _RESERVED.intersection(spec.hyperparameters)
        if reserved:
            raise VariantError(f"variant {spec.name!r}: the hyperparameter name {min(reserved)!r} is reserved")
        self._specs[spec.name] = spec

    def add_all(self, specs: Iterable[VariantSpec]) -> None:
        """Register several variants, or none of them if one cannot be registered."""
        before = dict(self._specs)
        try:
            for spec in specs:
                self.add(spec)
        except VariantError:
            self._specs = before
            raise

    def names(self) -> list[str]:
        return list(self._specs)

    def get(self, name: str) -> VariantSpec:
        """The specification of `name`; its hyperparameters are a copy.

        Raises:
            VariantError: if there is none; says which names are close.
        """
        if name not in self._specs:
            raise VariantError(f"no variant {name!r}; {suggest(name, self._specs)}")
        found = self._specs[name]
        return replace(found, hyperparameters=dict(found.hyperparameters))

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[VariantSpec]:
        return iter(list(self._specs.values()))


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the close names, else all of them."""
    known = list(known)
    if not known:
        return "it has none"
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}"


def load_object(reference: str) -> Any:
    """The object that `module:name` refers to.

    Raises:
        VariantError: if it cannot be imported.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise VariantError(f"cannot import {reference!r}: {error}") from error


def add_entry_points(registry: Registry, entry_points: Iterable[EntryPoint]) -> None:
    """Register third-party variants; a package that fails is left out with a `VariantWarning` that names it."""
    for entry_point in entry_points:
        staged = Registry()
        try:
            entry_point.load().register(staged)
            registry.add_all(staged)
        # Whatever somebody else's package raises while it is imported, the other variants must stay usable.
        except Exception as error:
            package = entry_point.dist.name if entry_point.dist else entry_point.value
            warnings.warn(
                f"the variants of package {package!r} (entry point {entry_point.name!r}) are left out: "
                f"{type(error).__name__}: {error}",
                VariantWarning,
                stacklevel=2,
            )


@cache
def built_in() -> Registry:
    """The variants of this package."""
    registry = Registry()
    for module in BUILT_IN:
        import_module(module).register(registry)
    return registry


@cache
def registry() -> Registry:
    """All variants: those of this package, then those of installed third-party packages."""
    # Imported here: a process that asks for a built-in variant by name never reads the metadata of all packages.
    from importlib.metadata import entry_points

    everything = Registry()
    everything.add_all(built_in())
    add_entry_points(everything, sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (e.value, e.name)))
    return everything


def names() -> list[str]:
    """Names of all variants: the built-in ones, then third-party ones."""
    return registry().names()


def spec(name: str) -> VariantSpec:
    """The specification of a variant.

    Raises:
        VariantError: if there is no such variant; says which names are close.
    """
    return built_in().get(name) if name in built_in() else registry().get(name)


def resolve(name: str, overrides: Mapping[str, object]) -> VariantSpec:
    """The specification of a variant with hyperparameters replaced.

    `params` stays known where the outcome equals a registered variant of the same factory.

    Raises:
        VariantError: for an unknown variant or hyperparameter, a wrong type, or values that do not fit together.
    """
    resolved = spec(name).override(overrides)
    if resolved.params is None:
        for other in built_in():
            if other.factory == resolved.factory and other.hyperparameters == resolved.hyperparameters:
                return replace(resolved, params=other.params)
    return resolved


def _rule(spec: VariantSpec, key: str, value: object) -> Any:
    """A rule of `RULES`, checked; prompts as a tuple."""
    if value not in RULES[key]:
        raise VariantError(f"variant {spec.name!r}: {key} cannot be {value!r}; known: {', '.join(RULES[key])}")
    return tuple(str(value).split("+")) if key == "prompts" else value


def _typed(variant: str, key: str, value: object, default: Hyperparameter) -> Hyperparameter:
    """`value` in the type of `default`; booleans are never taken for numbers."""
    integer = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, tuple):
        fits = isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if fits and isinstance(value, list | tuple) and len(value) == len(default):
            return tuple(value)
        wanted = f"a list of {len(default)} integers such as {list(default)}"
    elif isinstance(default, bool):
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    elif isinstance(default, int):
        if integer and isinstance(value, int):
            return value
        wanted = f"an integer such as {default}"
    elif isinstance(default, float):
        if (integer or isinstance(value, float)) and isinstance(value, int | float):
            return float(value)
        wanted = f"a number such as {default}"
    else:
        if isinstance(value, str):
            return value
        wanted = f"text such as {default!r}"
    raise VariantError(f"variant {variant!r}: {key} must be {wanted}, not {value!r}")
