"""``response_format``: what may be given, what goes on the wire, what comes back, and every way in which it may go wrong."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pickle
import socket
import subprocess
import sys
import time
import types
import typing
import uuid
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union

import attrs
import hypothesis
import jsonschema_rs
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import strategies as st
from servers.llama import LlamaServer

from llm_master import InvalidOutputError, InvalidRequestError, LLMResponse, QueryLLM, StreamEnd, TextDelta, ToolCall, ToolCallDelta
from llm_master.strict_schema import in_words, is_strict, references, to_strict, with_own_root, wrapped
from llm_master.structured import UnfitError, Wanted, apply, as_text, choose, finish, repair_messages, wanted
from llm_master.types import AudioDelta, ReasoningDelta, WireAnswer

T = TypeVar("T")

PERSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.define
class Person:
    """Somebody."""

    name: str
    age: int = attrs.field(validator=attrs.validators.ge(0))
    nick: str | None = None
    colour: Colour = Colour.RED


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


@attrs.define
class Aliased:
    size: int = attrs.field(alias="how_big")
    _hidden: str = "h"


@dataclasses.dataclass
class Times:
    when: datetime.datetime
    day: datetime.date
    price: decimal.Decimal
    key: uuid.UUID
    span: datetime.timedelta
    data: bytes


@dataclasses.dataclass
class Pair(Generic[T]):
    left: T
    right: T


class Point(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    left_side: int
    top_side: float = 0.5


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Movie(TypedDict, total=False):
    title: typing_extensions.Required[str]
    year: int


class Spot(NamedTuple):
    x: int
    y: int


class City(pydantic.BaseModel):
    """A city."""

    name: str = pydantic.Field(description="In English.", min_length=1)
    size: int = pydantic.Field(alias="population", ge=0)


class Country(pydantic.BaseModel):
    capital: City = pydantic.Field(description="Where the government is.")
    cities: list[City] = []
    neighbours: list[Country] = []
    colour: Colour = Colour.GREEN
    area: Optional[float] = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Owner(pydantic.BaseModel):
    pet: Union[Cat, Dog] = pydantic.Field(discriminator="kind")


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Even(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("is odd")
        return value


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str


class OwnWay(pydantic.BaseModel):
    """Overrides both methods of pydantic that matter here."""

    x: int

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"X": {"type": "integer"}}, "required": ["X"]}

    @classmethod
    def model_validate_json(cls, json_data: Any, **options: Any) -> OwnWay:
        return cls(x=json.loads(json_data)["X"])


@pydantic.dataclasses.dataclass
class PydanticPair:
    low: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Holder:
    city: City


class MovieOfCity(typing_extensions.TypedDict):
    city: City


@attrs.define
class AttrsHolder:
    city: City


@attrs.define
class Breaks:
    x: int

    def __attrs_post_init__(self) -> None:
        raise {1: ValueError("one is bad"), 2: KeyError("two"), 3: RecursionError("three")}[self.x]


class NotOurs:
    pass


@attrs.define
class HoldsNotOurs:
    thing: NotOurs


def format_of(kind: Any) -> dict[str, Any]:
    return want(kind).openai_format()["json_schema"]


def want(kind: Any) -> Wanted:
    found = wanted(kind)
    assert found is not None
    return found


def value_of(kind: Any, text: str) -> Any:
    return want(kind).parse(text)


def fits_wire(found: Wanted, text: str) -> bool:
    return jsonschema_rs.validator_for(found.schema).is_valid(json.loads(text))


# What may be given


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Person, '{"name": "Ann", "age": 3, "nick": null, "colour": "green"}', Person("Ann", 3, None, Colour.GREEN)),
        (Person, '{"name": "Ann", "age": 3}', Person("Ann", 3)),
        (Tree, '{"value": 1, "children": [{"value": 2, "children": []}]}', Tree(1, [Tree(2)])),
        (Aliased, '{"size": 1, "_hidden": "x"}', Aliased(1, "x")),
        (Point, '{"leftSide": 1, "topSide": 2.5}', Point(1, 2.5)),
        (Movie, '{"title": "M"}', {"title": "M"}),
        (Pair[int], '{"left": 1, "right": 2}', Pair(1, 2)),
        (City, '{"name": "Rome", "population": 3}', City(name="Rome", population=3)),
        (Owner, '{"pet": {"kind": "cat", "lives": 7}}', Owner(pet=Cat(kind="cat", lives=7))),
        (Box[int], '{"content": 4}', Box[int](content=4)),
        (Box[City], '{"content": {"name": "Rome", "population": 1}}', Box[City](content=City(name="Rome", population=1))),
        (Holder, '{"city": {"name": "Rome", "population": 1}}', Holder(City(name="Rome", population=1))),
        (MovieOfCity, '{"city": {"name": "Rome", "population": 1}}', {"city": City(name="Rome", population=1)}),
        (PydanticPair, '{"low": 2}', PydanticPair(2)),
        (pydantic.TypeAdapter(City), '{"name": "Rome", "population": 3}', City(name="Rome", population=3)),
        (OwnWay, '{"X": 5}', OwnWay(x=5)),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (PERSON_SCHEMA, '{"name": "Ann", "age": 3}', {"name": "Ann", "age": 3}),
        ({"type": "json_object"}, '{"a": [1.5, null]}', {"a": [1.5, None]}),
    ],
)
def test_an_object_is_made_of_the_answer(kind: Any, text: str, expected: Any) -> None:
    found = want(kind)
    assert not found.wrapped
    assert found.parse(text) == expected
    assert type(found.parse(text)) is type(expected)


@pytest.mark.parametrize(
    ("kind", "inner", "expected"),
    [
        (list[int], "[1, 2]", [1, 2]),
        (list[Person], '[{"name": "Ann", "age": 3, "nick": "A", "colour": "red"}]', [Person("Ann", 3, "A")]),
        (list[City], '[{"name": "Rome", "population": 3}]', [City(name="Rome", population=3)]),
        (dict[str, City] | None, '{"a": {"name": "Rome", "population": 3}}', {"a": City(name="Rome", population=3)}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (set[str], '["a", "b"]', {"a", "b"}),
        (Spot, "[1, 2]", Spot(1, 2)),
        (Numbers, "[1]", Numbers([1])),
        (pydantic.TypeAdapter(list[int]), "[1]", [1]),
        (typing.Annotated[int, pydantic.Field(ge=3)], "3", 3),
        (typing.Annotated[int, msgspec.Meta(ge=3)], "3", 3),
        (typing.Annotated[int, ["not hashable"]], "3", 3),
        (typing.NewType("Metres", int), "3", 3),
        (Literal["a", "b"], '"b"', "b"),
        (Literal["a", 1, None], "null", None),
        (Colour, '"red"', Colour.RED),
        (Level, "2", Level.HIGH),
        (int | str, '"x"', "x"),
        (Optional[int], "null", None),
        (Circle | Square, '{"type": "Square", "side": 2}', Square(2.0)),
        (Union[Cat, Dog], '{"kind": "dog"}', Dog(kind="dog")),
        (int, "3", 3),
        (str, '" x "', " x "),
        (decimal.Decimal, '"1.10"', decimal.Decimal("1.10")),
        (Any, '[1, {"a": 2}]', [1, {"a": 2}]),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"enum": ["a", "b"]}, '"a"', "a"),
        ({"type": ["object", "null"]}, "null", None),
        ({"anyOf": [{"type": "object"}, {"type": "integer"}]}, "1", 1),
    ],
)
def test_what_is_no_object_is_wrapped_into_one_and_out_again(kind: Any, inner: str, expected: Any) -> None:
    found = want(kind)
    assert found.wrapped
    assert found.schema["type"] == "object"
    assert list(found.schema["properties"]) == ["value"] == found.schema["required"]
    text = f'{{"value": {inner}}}'
    assert found.parse(text) == expected
    assert type(found.parse(text)) is type(expected)
    assert fits_wire(found, text)
    for wrong, why in ((inner, "$"), ("{}", "'value' is missing"), (f'{{"value": {inner}, "more": 1}}', "$.more")):
        if wrong != text:
            with pytest.raises(UnfitError, match=why.replace("$", r"\$")):
                found.parse(wrong)


def test_every_kind_of_field_comes_back_as_what_it_is() -> None:
    times = Times(
        datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        datetime.date(2026, 1, 2),
        decimal.Decimal("0.10"),
        uuid.UUID(int=7),
        datetime.timedelta(hours=1),
        b"\x00\xff",
    )
    found = want(Times)
    assert found.strict
    assert found.parse(msgspec.json.encode(times).decode()) == times
    assert found.schema["properties"]["data"] == {"type": "string", "description": '(contentEncoding: "base64")'}
    with pytest.raises(UnfitError, match=r"^\$\.day: "):
        found.parse(msgspec.json.encode(times).decode().replace('"2026-01-02"', '"soon"'))


@pytest.mark.parametrize("kind", [None, {"type": "text"}, {"type": "grammar", "grammar": "root ::= x"}, {"type": "regex", "pattern": "a+"}])
def test_nothing_is_wanted_where_only_the_provider_knows(kind: Any) -> None:
    assert wanted(kind) is None


@pytest.mark.parametrize(
    "kind", [types.MappingProxyType(PERSON_SCHEMA), {**PERSON_SCHEMA, "properties": types.MappingProxyType(PERSON_SCHEMA["properties"])}]
)
def test_any_mapping_is_a_dict(kind: Any) -> None:
    found = want(kind)
    assert found.openai_format()["json_schema"]["schema"] == PERSON_SCHEMA
    assert msgspec.json.encode(found.openai_format())


def test_a_dict_without_type_is_a_schema_by_its_keywords() -> None:
    schema = {"properties": {"a": {"type": "integer"}}}
    found = want(schema)
    assert (found.schema, found.wrapped, found.strict) == (schema, False, False)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Person, "Person"),
        (list[Person], "list_Person"),
        (Box[int], "Box_int"),
        (Literal["a"], "answer"),
        (PERSON_SCHEMA, "answer"),
        ({**PERSON_SCHEMA, "title": "Größe: the person!"}, "Gr_e_the_person"),
        ({**PERSON_SCHEMA, "title": "人"}, "answer"),
        ({**PERSON_SCHEMA, "title": 10 * "long name "}, ("long_name_" * 7)[:64]),
        ({"type": "json_schema", "json_schema": {"name": "my name", "schema": PERSON_SCHEMA}}, "my_name"),
        ({"type": "json_schema", "json_schema": {"schema": PERSON_SCHEMA}}, "answer"),
        (type("Ünï", (), {"__annotations__": {}}), "n"),
    ],
)
def test_the_name_fits_the_api(kind: Any, name: str) -> None:
    if isinstance(kind, type) and kind.__module__ == __name__ and not kind.__annotations__:
        kind = dataclasses.dataclass(kind)
    assert want(kind).name == name


# What may not


CLASSES = "pydantic model.*attrs class.*dataclass.*JSON schema"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (5, f"is 5: give a {CLASSES}"),
        (True, f"is True: give a {CLASSES}"),
        ("Person", f"is 'Person': give a {CLASSES}"),
        ("x" * 1000, r"is 'x{70,79}: give"),
        (1.5, "is 1.5"),
        ([], f"instance of list.*{CLASSES}"),
        ([PERSON_SCHEMA], "instance of list"),
        (Person("Ann", 3), "instance of Person: give the class itself"),
        (City(name="Rome", population=1), "instance of City: give the class itself"),
        (Colour.RED, "instance of Colour: give the class itself"),
        (lambda: 1, "instance of function"),
        (json, "instance of module"),
        (NotOurs, f"NotOurs cannot be made a JSON schema.*{CLASSES}"),
        (HoldsNotOurs, "HoldsNotOurs cannot be made a JSON schema.*NotOurs"),
        (object, "object cannot be made"),
        (Person | Tree, "union.*pydantic models.*tag"),
        (AttrsHolder, "AttrsHolder cannot be made.*pydantic"),
        (list[AttrsHolder], "pydantic"),
        (enum.Enum, "at least one"),
        ({}, "holds nothing.*json_object"),
        ({"name": "x", "schema": {}}, "holds 'name', 'schema'.*neither a type"),
        ({"type": "objekt"}, r"\$\.type: there is no type 'objekt': did you mean 'object'"),
        ({"type": "objekt", "properties": {}}, r'\$\.type: "objekt" is no type of JSON schema: give one of string'),
        ({"type": "int"}, "did you mean 'integer'"),
        ({"type": "jsonschema"}, "did you mean 'json_schema'.*extra_body"),
        ({"type": 5}, r"\$\.type: 5 is no type"),
        ({"type": ["object", "nul"]}, r"\$\.type"),
        ({"properties": []}, r"\$\.properties: \[\] is not of type"),
        ({"$ref": "#/nowhere"}, r"\$\.\$ref: there is nothing where it points.*/nowhere"),
        ({"type": "object", "properties": {"a": {"items": {"$ref": "#/$defs/B"}}}}, r"\$\.properties\.a\.items\.\$ref"),
        ({"type": "object", "properties": {"a": {"type": "str"}}}, r'\$\.properties\.a\.type: "str" is no type'),
        ({"type": "object", "anyOf": [{"type": "string"}, {"minimum": "1"}]}, r"\$\.anyOf\[1\]\.minimum"),
        ({"type": "string", "pattern": "["}, r"\$\.pattern"),
        ({"type": "object", "required": "a"}, r"\$\.required"),
        ({"type": "object", "$schema": "http://nowhere.invalid/"}, r"\$\.\$schema"),
        ({"type": "object", "properties": {"a": Person}}, r"\$\.properties\.a holds <class .*Person.*give a class for the whole"),
        ({"type": "object", "enum": [{"a": {1, object()}}]}, r"\$\.enum\[0\]\.a"),
        ({"type": "json_schema"}, "has no schema"),
        ({"type": "json_schema", "json_schema": "x"}, "has no schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": True}}, "has no schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}, r"\$\.type"),
        ({"type": "json_object", "schema": {"type": "objekt"}}, r"\$\.type"),
    ],
)
def test_what_is_no_format_is_refused_with_a_remedy(kind: Any, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why) as caught:
        wanted(kind)
    assert "response_format" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_schema_that_holds_itself_or_is_endless_is_refused() -> None:
    circle: dict[str, Any] = {"type": "object"}
    circle["properties"] = {"a": circle}
    with pytest.raises(InvalidRequestError, match="holds itself"):
        wanted(circle)
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(700):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(InvalidRequestError, match="no JSON schema"):
        wanted(deep)


@pytest.mark.parametrize("where", ["$ref", "$schema"])
def test_a_schema_opens_no_address_and_no_file(where: str, tmp_path: Path) -> None:
    """A schema may come from anywhere, and the validator fetches by default what it refers to."""
    there = tmp_path / "there.json"
    there.write_text('{"type": "integer"}')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        for uri in (f"http://127.0.0.1:{listener.getsockname()[1]}/x", f"https://127.0.0.1:{listener.getsockname()[1]}/x", there.as_uri()):
            for schema in ({"type": "object", "properties": {"a": {where: uri}}}, {"type": "object", where: uri}):
                if schema.get("properties") and where == "$schema":
                    continue  # below the root it is a comment
                with pytest.raises(InvalidRequestError, match=rf"response_format is no JSON schema: \$.*\{where}: .*{uri}"):
                    wanted(schema)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_one_part_of_an_all_of_is_merged_unless_both_say_something_of_the_same() -> None:
    def of(part: Any) -> Any:
        return to_strict({"type": "object", "properties": {"a": part}})

    merged = of({"allOf": [{"type": "integer", "minimum": 1}], "description": "d"})
    assert merged["properties"]["a"] == {"description": "d", "type": "integer", "minimum": 1}
    assert of({"allOf": [{"type": "integer", "minimum": 1}], "minimum": 5}) is None
    assert of({"allOf": [{"type": "integer"}, {"minimum": 5}]}) is None


@pytest.mark.parametrize("alias", [typing.NewType("Town", City), typing_extensions.TypeAliasType("Town", City)])
def test_a_pydantic_model_by_another_name(alias: Any) -> None:
    rome = City(name="Rome", population=3)
    assert value_of(alias, '{"name": "Rome", "population": 3}') == rome
    assert value_of(list[alias], '{"value": [{"name": "Rome", "population": 3}]}') == [rome]


def test_what_pydantic_says_beside_a_type_holds() -> None:
    for kind in (typing.Annotated[int, pydantic.Field(ge=3)], pydantic.PositiveInt, list[typing.Annotated[int, pydantic.Field(ge=3)]]):
        assert "inimum" in json.dumps(want(kind).schema)
        with pytest.raises(UnfitError, match="greater than"):
            value_of(kind, '{"value": [0]}' if typing.get_origin(kind) is list else '{"value": 0}')


def test_a_local_class_whose_names_cannot_be_found_is_refused() -> None:
    @attrs.define
    class Inner:
        x: int

    @attrs.define
    class Outer:
        inner: Inner

    with pytest.raises(InvalidRequestError, match="Outer cannot be made a JSON schema.*Inner"):
        wanted(Outer)


def test_a_pydantic_class_that_is_not_complete_is_refused() -> None:
    class Later(pydantic.BaseModel):
        other: NowhereToBeFound  # noqa: F821

    with pytest.raises(InvalidRequestError, match="Later cannot be made.*NowhereToBeFound"):
        wanted(Later)


# The schema on the wire


@pytest.mark.parametrize(
    "kind",
    [
        *(Person, Tree, Aliased, Times, Pair[int], Point, Movie, City, Country, Owner, Box[City], Holder, PydanticPair, list[int]),
        *(Numbers, Colour, Level, Literal["a", 1, None], Optional[int], Circle | Square, Union[Cat, Dog], list[Country], Even),
    ],
)
def test_classes_are_strict(kind: Any) -> None:
    inner = format_of(kind)
    assert inner["strict"] is True
    schema = inner["schema"]
    assert is_strict(schema)
    jsonschema_rs.meta.validate(schema)
    assert jsonschema_rs.validator_for(schema) is not None

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for part in node:
                walk(part)
        if not isinstance(node, dict):
            return
        if "$ref" in node:
            assert node.keys() == {"$ref"}
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert sorted(node["required"]) == sorted(node["properties"])
        for key, part in node.items():
            for inner_part in part.values() if key in ("properties", "$defs") else [part]:
                walk(inner_part)

    walk(schema)
    for word in ('"default"', '"oneOf"', '"discriminator"', '"allOf"', '"minLength"'):
        assert word not in json.dumps(schema)


def test_the_schema_of_a_class_in_full() -> None:
    assert want(Person).openai_format() == {
        "type": "json_schema",
        "json_schema": {
            "name": "Person",
            "strict": True,
            "schema": {
                "title": "Person",
                "description": "Somebody.",
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer"},
                    "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "colour": {"$ref": "#/$defs/Colour"},
                },
                "required": ["name", "age", "nick", "colour"],
                "additionalProperties": False,
                "$defs": {"Colour": {"title": "Colour", "enum": ["green", "red"], "type": "string"}},
            },
        },
    }


def test_what_strict_mode_cannot_enforce_is_said_in_words_and_beside_a_reference_nothing_stands() -> None:
    schema = want(Country).schema
    assert schema["$defs"]["City"]["properties"]["name"]["description"] == "In English. (minLength: 1)"
    assert schema["$defs"]["City"]["properties"]["population"]["minimum"] == 0
    assert schema["properties"]["capital"] == {"anyOf": [{"$ref": "#/$defs/City"}], "description": "Where the government is."}


@pytest.mark.parametrize("kind", [dict[str, int], dict, Open, Any, tuple[int, str], list, Spot, list[dict[str, int]]])
def test_a_class_that_cannot_be_strict_is_not_and_its_schema_stays(kind: Any) -> None:
    inner = format_of(kind)
    assert "strict" not in inner
    assert "strict" not in want(kind).as_tool()["function"]
    assert not want(kind).strict


def test_the_schema_of_a_class_that_is_not_strict_is_unchanged() -> None:
    @dataclasses.dataclass
    class Loose:
        table: dict[str, int]
        size: int = 3

    expected = msgspec.json.schema(Loose)["$defs"]["Loose"]
    assert want(Loose).schema == expected
    assert want(Open).schema == Open.model_json_schema()


def test_a_pattern_that_the_api_cannot_read_is_said_in_words() -> None:
    pattern = "^(?!x)a$"
    kind = typing.Annotated[str, msgspec.Meta(pattern=pattern)]
    schema = want(kind).schema["properties"]["value"]
    assert schema == {"type": "string", "description": f"(pattern: {json.dumps(pattern)})"}
    assert want(typing.Annotated[str, msgspec.Meta(pattern="^(?:a)$")]).schema["properties"]["value"]["pattern"] == "^(?:a)$"
    with pytest.raises(UnfitError, match="regex"):
        want(kind).parse('{"value": "xa"}')


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (PERSON_SCHEMA, True),
        ({**PERSON_SCHEMA, "$schema": "http://json-schema.org/draft-07/schema#"}, True),
        ({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, True),
        ({**PERSON_SCHEMA, "required": ["name"]}, False),
        ({**PERSON_SCHEMA, "additionalProperties": True}, False),
        ({key: value for key, value in PERSON_SCHEMA.items() if key != "additionalProperties"}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"type": "string", "default": "x"}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"type": "string", "format": "uri"}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"enum": ["a"]}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"type": "array"}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"type": "array", "items": False}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"$ref": "#", "description": "x"}, "age": {"type": "integer"}}}, False),
        ({**PERSON_SCHEMA, "properties": {"name": {"$ref": "#"}, "age": {"type": ["integer", "null"]}}}, True),
        ({**PERSON_SCHEMA, "anyOf": [{"type": "object"}]}, False),
    ],
)
def test_a_users_schema_is_never_changed_and_strict_only_if_it_complies(schema: dict[str, Any], strict: bool) -> None:
    before = copy.deepcopy(schema)
    found = want(schema)
    inner = found.openai_format()["json_schema"]
    assert inner["schema"] == before == schema
    assert list(inner["schema"]) == list(before)
    assert inner.get("strict", False) is strict is found.strict


def test_later_changes_of_a_users_dict_do_not_reach_what_was_made_of_it() -> None:
    schema = copy.deepcopy(PERSON_SCHEMA)
    found = want(schema)
    schema["properties"].clear()
    assert found.schema == PERSON_SCHEMA
    with pytest.raises(UnfitError):
        found.parse("{}")


def test_openais_own_form_is_kept_exactly() -> None:
    own = {
        "type": "json_schema",
        "json_schema": {"name": "p!", "schema": {**PERSON_SCHEMA, "x-mine": 1}, "strict": False, "description": "d"},
    }
    before = copy.deepcopy(own)
    found = want(own)
    assert found.openai_format() == before == own
    assert found.parse('{"name": "A", "age": 1}') == {"name": "A", "age": 1}
    with pytest.raises(UnfitError, match=r"^\$\.age: "):
        found.parse('{"name": "A", "age": "x"}')
    assert found.as_tool()["function"]["name"] == "p"
    assert not found.wrapped


def test_the_flat_form_is_kept_too() -> None:
    own = {"type": "json_schema", "schema": {"type": "array", "items": {"type": "integer"}}}
    found = want(own)
    assert found.openai_format() == own
    assert found.parse("[1]") == [1]
    assert choose(found, "tool", {}) == "prompt"


def test_json_object_with_a_schema_is_checked_by_it() -> None:
    own = {"type": "json_object", "schema": PERSON_SCHEMA}
    found = want(own)
    assert found.openai_format() == own
    with pytest.raises(UnfitError, match="age"):
        found.parse('{"name": "A"}')


def test_a_raw_schema_is_wrapped_with_its_definitions_at_the_root() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}
    found = want(schema)
    assert found.schema == {
        "type": "object",
        "properties": {"value": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
        "required": ["value"],
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer"}},
    }
    assert found.parse('{"value": [1]}') == [1]
    with pytest.raises(UnfitError, match=r"\$\[0\]"):
        found.parse('{"value": ["x"]}')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "items": [{"type": "integer"}, {"$ref": "#/items/0"}], "$schema": "http://json-schema.org/draft-07/schema#"},
        {"type": "array", "$id": "http://x.invalid/a", "items": {"type": "integer"}},
    ],
)
def test_a_raw_schema_that_would_break_inside_another_is_not_wrapped(schema: dict[str, Any]) -> None:
    found = want(schema)
    assert found.schema == schema
    assert not found.wrapped
    assert found.parse("[]") == []


def test_limits_can_be_put_into_words_for_an_api_that_refuses_them() -> None:
    found = want(Country).without({"minimum", "additionalProperties"})
    assert found.schema["$defs"]["City"]["properties"]["population"] == {
        "title": "Population",
        "type": "integer",
        "description": "(minimum: 0)",
    }
    assert found.strict and is_strict(found.schema)
    assert found.schema["additionalProperties"] is False, "words cannot stand for it"
    assert "minimum" in want(Country).schema["$defs"]["City"]["properties"]["population"], "the original is as it was"
    with pytest.raises(UnfitError, match="population"):
        found.parse('{"capital": {"name": "Rome", "population": -1}}')
    raw = want({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}})
    assert raw.without({"minimum"}) is raw


def test_a_property_called_like_a_keyword_is_a_property() -> None:
    kind = attrs.make_class("Odd", {name: attrs.field(type=int, default=1) for name in ("default", "title", "minLength", "properties")})
    found = want(kind)
    assert found.strict
    assert list(found.schema["properties"]) == ["default", "title", "minLength", "properties"]
    assert in_words(found.schema, {"minLength"}) == found.schema
    assert found.parse('{"default": 1, "title": 2, "minLength": 3, "properties": 4}') == kind(1, 2, 3, 4)


def test_the_root_of_a_chain_of_references_is_found_and_a_circle_of_them_is_no_hang() -> None:
    chain = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "object", "properties": {}}, "c": {"type": "null"}}}
    assert with_own_root(chain) == {"type": "object", "properties": {}}
    circle = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    assert set(with_own_root(circle)["$defs"]) == {"a", "b"}
    assert to_strict(circle) is None


def test_conversions_are_kept_per_class_and_per_schema() -> None:
    assert wanted(Person) is wanted(Person)
    assert wanted(dict(PERSON_SCHEMA)) is wanted(copy.deepcopy(PERSON_SCHEMA))
    assert want(Literal[1]).schema != want(Literal[True]).schema
    one, true = ({"type": "object", "properties": {"a": {"const": value}}} for value in (1, True))
    assert one == true, "as Python has it"
    assert want(one).parse('{"a": 1}') == {"a": 1}
    with pytest.raises(UnfitError):
        want(true).parse('{"a": 1}')


def test_classes_made_by_the_thousand_are_not_all_kept() -> None:
    import gc
    import weakref

    first = attrs.make_class("First", {"x": attrs.field(type=int)})
    gone = weakref.ref(first)
    assert want(first).strict
    del first
    for number in range(600):
        assert want(attrs.make_class(f"C{number}", {"x": attrs.field(type=int)})).name == f"C{number}"
    gc.collect()
    assert gone() is None


# What comes back


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"A","age":1}',
        ' \n\t{"name":"A","age":1}\r\n',
        '```json\n{"name":"A","age":1}\n```',
        '```\n{"name":"A","age":1}\n```\n',
        '  ```JSON\r\n{"name":"A","age":1}\r\n```  ',
        '```json {"name":"A","age":1} ```',
        '{"name":"B","age":7,"name":"A","age":1}',
    ],
)
@pytest.mark.parametrize("kind", [Person, PERSON_SCHEMA])
def test_white_space_and_one_fence_are_tolerated(kind: Any, text: str) -> None:
    parsed = value_of(kind, text)
    assert (parsed if isinstance(parsed, dict) else {"name": parsed.name, "age": parsed.age}) == {"name": "A", "age": 1}


@pytest.mark.parametrize("text", ["`", "``", "```", "````", "`````", "``````", "```json```", "```json\n" + " " * 10**6 + "x"])
def test_a_fence_that_is_none_or_endless_white_space_is_refused_at_once(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(UnfitError):
        value_of(Person, text)
    assert time.perf_counter() - began < 5


def test_a_fence_inside_a_text_is_left_alone() -> None:
    text = "```python\nx\n```"
    assert value_of(list[str], json.dumps({"value": [text]})) == [text]
    assert value_of(list[str], "```json\n" + json.dumps({"value": [text]}) + "\n```") == [text]


@pytest.mark.parametrize("kind", [Person, City, PERSON_SCHEMA, {"type": "json_object"}, list[int], pydantic.TypeAdapter(City)])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("  \n ", "it is empty"),
        ("```json\n```", "it is empty"),
        ("Sure! Here it is.", "it is not JSON"),
        ('Sure: {"name": "A", "age": 1}', "it is not JSON"),
        ('{"name": "A", "age": 1} Hope that helps!', "it is not JSON.*trailing"),
        ('```json\n{"name": "A", "age": 1}\n```\nThere.', "it is not JSON"),
        ('{"name": "A", "age": 1}{"name": "A", "age": 1}', "it is not JSON"),
        ('{"name": "A", "age": ', "it is not JSON.*truncated"),
        ("{'name': 'A'}", "it is not JSON"),
        ('{"name": "A", "age": NaN}', "it is not JSON"),
        ('{"name": "A", "age": Infinity}', "it is not JSON"),
        ('{"name": "A", "age": 1e999}', "it is not JSON.*range"),
        ('{"name": "\\ud800", "age": 1}', "it is not JSON"),
        ('{"name": "\ud800", "age": 1}', "it is not JSON"),
        ('{"name": "A",}', "it is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name":' * 50_000, "nested too deeply"),
        ("null", r"^\$"),
        ('"text"', r"^\$"),
        ("[1]", r"^\$"),
    ],
)
def test_what_is_no_json_or_no_object_is_refused(kind: Any, text: str, why: str) -> None:
    with pytest.raises(UnfitError, match=why) as caught:
        value_of(kind, text)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (Person, '{"name": "A", "age": "x"}', "$.age: Expected `int`, got `str`"),
        (Person, '{"name": "A"}', "$: Object missing required field `age`"),
        (list[Person], '{"value": [{"name": "A", "age": "x"}]}', "$[0].age: Expected `int`, got `str`"),
        (Person, '{"name": "A", "age": -1}', "$: 'age' must be >= 0: -1"),
        (Point, '{"leftSide": 1, "x": 1}', "$: Object contains unknown field `x`"),
        (City, '{"name": "", "population": -1}', "$.name: String should have at least 1 character (and 1 more)"),
        (list[City], '{"value": [{"name": "R", "population": "x"}]}', "$[0].population: Input should be a valid integer, unable to parse"),
        (Even, '{"number": 3}', "$.number: Value error, is odd"),
        (Owner, '{"pet": {"kind": "cow"}}', "$.pet: Input tag 'cow' found"),
        (PERSON_SCHEMA, '{"name": "A", "age": "x"}', '$.age: "x" is not of type "integer"'),
        (PERSON_SCHEMA, '{"name": "A"}', '$: "age" is a required property'),
        ({"type": "object", "properties": {"a": {"items": {"enum": [1, 2]}}}}, '{"a": [1, 5]}', "$.a[1]: 5 is not one of"),
        (Breaks, '{"x": 1}', "$: one is bad"),
        (Breaks, '{"x": 2}', "$: the class refused it: KeyError: 'two'"),
        (Breaks, '{"x": 3}', "$: the class refused it: RecursionError: three"),
    ],
)
def test_the_reason_says_where_and_what(kind: Any, text: str, reason: str) -> None:
    with pytest.raises(UnfitError) as caught:
        value_of(kind, text)
    assert str(caught.value).startswith(reason)


def test_a_reason_stays_short_whatever_the_model_wrote() -> None:
    with pytest.raises(UnfitError) as caught:
        value_of({"type": "object", "properties": {"a": {"type": "integer"}}}, json.dumps({"a": "x" * 100_000}))
    assert len(str(caught.value)) < 300


# Round trips

IDENTIFIERS = st.sampled_from(["alpha", "beta", "gamma_ray", "title", "default", "type", "value"])
FIELDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**53), 2**53)),
    (str, st.text(st.characters(exclude_categories=["Cs"]))),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (Optional[int], st.none() | st.integers(-100, 100)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["x", "y"], st.sampled_from(["x", "y"])),
    (list[int], st.lists(st.integers(-5, 5))),
    (list[Colour], st.lists(st.sampled_from(Colour))),
    (datetime.date, st.dates()),
    (datetime.datetime, st.datetimes(timezones=st.just(datetime.timezone.utc))),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**6), max_value=10**6, places=4)),
    (dict[str, int], st.dictionaries(st.text("abc"), st.integers(-5, 5))),
    (Optional[list[str]], st.none() | st.lists(st.text("abc"))),
]
LOOSE = dict[str, int]


@st.composite
def made_classes(draw: st.DrawFn) -> tuple[str, Any, dict[str, Any], bool]:
    """A kind of class, the class, the values of its fields, and whether it can be strict."""
    chosen = draw(st.lists(st.tuples(IDENTIFIERS, st.sampled_from(FIELDS)), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
    fields = {name: kind for name, (kind, _) in chosen}
    values = {name: draw(strategy) for name, (_, strategy) in chosen}
    strict = LOOSE not in fields.values()
    how = draw(st.sampled_from(["attrs", "dataclass", "struct", "pydantic", "typeddict"]))
    if how == "attrs":
        return how, attrs.make_class("Made", {name: attrs.field(type=kind) for name, kind in fields.items()}), values, strict
    if how == "dataclass":
        return how, dataclasses.make_dataclass("Made", list(fields.items())), values, strict
    if how == "struct":
        return how, msgspec.defstruct("Made", list(fields.items())), values, strict
    if how == "pydantic":
        return how, pydantic.create_model("Made", **{name: (kind, ...) for name, kind in fields.items()}), values, strict
    return how, typing_extensions.TypedDict("Made", fields), values, strict


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(made_classes(), st.sampled_from(["alone", "list", "optional"]))
def test_whatever_class_its_objects_come_back_and_fit_the_schema_on_the_wire(made: Any, place: str) -> None:
    how, cls, values, strict = made
    instance = values if how == "typeddict" else cls(**values)
    encoded = instance.model_dump_json() if how == "pydantic" else msgspec.json.encode(instance).decode()
    kind, expected = {"alone": (cls, instance), "list": (list[cls], [instance, instance]), "optional": (cls | None, instance)}[place]
    text = {"alone": encoded, "list": f'{{"value": [{encoded}, {encoded}]}}', "optional": f'{{"value": {encoded}}}'}[place]
    found = want(kind)
    assert found.strict is strict
    assert found.parse(text) == expected
    assert fits_wire(found, text)
    assert found.parse(f"```json\n{text}\n```") == expected


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_any_json_comes_back_from_json_object_or_is_refused(value: Any) -> None:
    found = want({"type": "json_object"})
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return
    if isinstance(value, dict):
        assert found.parse(text) == value
    else:
        with pytest.raises(UnfitError, match=r"^\$: it is an? \w+, not an object|null"):
            found.parse(text)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | st.text('{}[]",:`json\n0123 tfn'))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    for kind in (Person, City, PERSON_SCHEMA, {"type": "json_object"}, list[int], Any):
        try:
            value_of(kind, text)
        except UnfitError as exc:
            assert str(exc)


KEYWORDS = st.sampled_from(
    "type properties items anyOf oneOf allOf enum const $ref $defs required additionalProperties default minLength pattern format title".split()
)
SCHEMA_LIKE = st.recursive(
    st.sampled_from(["object", "string", "array", "integer", "#/$defs/a", "#", "x"]) | st.booleans() | st.integers(0, 3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.sampled_from("ab"), inner, max_size=4),
    max_leaves=12,
)


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(st.dictionaries(KEYWORDS, SCHEMA_LIKE, max_size=5))
def test_whatever_dict_it_is_a_format_or_an_invalid_request_and_stays_as_it_is(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    try:
        found = wanted(schema)
    except InvalidRequestError as exc:
        assert "response_format" in str(exc)
    else:
        if found is not None:
            assert found.wrapped or found.schema == before
            found.openai_format(), found.as_tool(), found.instruction()
            with pytest.raises(UnfitError):
                found.parse("no JSON")
    assert schema == before
    assert list(schema) == list(before)


LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0, "default": 1},
        {"type": "string", "minLength": 1, "title": "T"},
        {"type": "string", "format": "uri", "description": "An address."},
        {"enum": ["a", 1, None]},
        {"const": True},
        {"$ref": "#/$defs/a"},
        {"$ref": "#/$defs/a", "default": None, "description": "d"},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {},
        {"not": {"type": "string"}},
    ]
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from(["a", "b", "type", "default"]), inner, max_size=3)
    return st.builds(lambda properties: {"type": "object", "properties": properties, "required": list(properties)[:1]}, named)


VALID = st.recursive(
    LEAVES,
    lambda inner: (
        _objects(inner)
        | inner.map(lambda part: {"type": "array", "items": part, "uniqueItems": True})
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"anyOf": parts})
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"oneOf": parts, "discriminator": {}})
        | inner.map(lambda part: {"allOf": [part], "default": 1})
    ),
    max_leaves=6,
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(_objects(VALID), VALID)
def test_what_is_made_strict_is_strict_and_doing_it_twice_changes_nothing(schema: dict[str, Any], definition: dict[str, Any]) -> None:
    schema = {**schema, "$defs": {"a": definition}}
    jsonschema_rs.meta.validate(schema)
    before = copy.deepcopy(schema)
    strict = to_strict(schema)
    assert schema == before
    if strict is not None:
        assert is_strict(strict)
        assert to_strict(strict) == strict
        jsonschema_rs.meta.validate(strict)
        assert "{}" not in str(strict).replace("'properties': {}", "")
    loose = ("'not'", "{'type': 'object'}", "'additionalProperties': {")
    assert (strict is None) or not any(word in str(strict) for word in loose)


def test_the_strategy_above_makes_both_kinds() -> None:
    """The test above would pass if nothing were ever made strict."""
    assert hypothesis.find(_objects(VALID), lambda schema: to_strict(schema) is not None and "oneOf" in str(schema)) is not None
    assert hypothesis.find(_objects(VALID), lambda schema: to_strict(schema) is None) is not None


# How it is asked

MESSAGES = [{"role": "user", "content": "Who?"}]
MINE = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("how", ["json_schema", "tool", "json_object", "prompt"])
@pytest.mark.parametrize(
    "messages",
    [
        MESSAGES,
        [{"role": "system", "content": "Be brief."}, *MESSAGES],
        [{"role": "developer", "content": "Be brief."}, *MESSAGES],
        [{"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}, *MESSAGES],
        [*MESSAGES, {"role": "system", "content": ""}, {"role": "system", "content": "second"}],
        tuple(MESSAGES),
    ],
)
def test_asking_changes_nothing_that_was_given(how: Any, messages: Any) -> None:
    found = want(Person)
    options = {"temperature": 0, "response_format": Person, "tools": [MINE]}
    before = copy.deepcopy((messages, options))
    asked, sent = apply(found, how, messages, options)
    assert (messages, options) == before
    assert sent["temperature"] == 0
    words = found.instruction()
    systems = [message for message in asked if message["role"] in ("system", "developer")]
    said = json.dumps(systems).count(json.dumps(words)[1:-1])
    if how == "json_schema":
        assert sent["response_format"] == found.openai_format() and said == 0 and list(asked) == list(messages)
    elif how == "tool":
        assert "response_format" not in sent
        assert sent["tools"] == [MINE, found.as_tool()] and options["tools"] == [MINE]
        assert sent["tool_choice"] == {"type": "function", "function": {"name": "Person"}} == found.tool_choice
        assert said == 0 and list(asked) == list(messages)
    else:
        assert sent.get("response_format") == ({"type": "json_object"} if how == "json_object" else None)
        assert said == 1
        assert words in json.dumps(systems[0]).encode().decode("unicode_escape")
        assert [m["role"] for m in asked if m["role"] == "user"] == ["user"]
        if len(messages) == 1:
            assert asked[0] == {"role": "system", "content": words}


def test_the_instruction_joins_the_first_system_message() -> None:
    found = want(Person)
    words = found.instruction()
    first = {"role": "system", "content": "Be brief.", "name": "boss"}
    assert apply(found, "prompt", [first, *MESSAGES], {})[0] == [{**first, "content": f"Be brief.\n\n{words}"}, *MESSAGES]
    parts = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert apply(found, "prompt", [parts, *MESSAGES], {})[0][0]["content"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": words},
    ]
    assert apply(found, "prompt", [{"role": "system", "content": None}], {})[0] == [{"role": "system", "content": words}]
    assert json.dumps(found.schema, separators=(",", ":"), ensure_ascii=False) in words


def test_a_way_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="json_schema, tool, json_object or prompt"):
        apply(want(Person), "grammar", MESSAGES, {})  # type: ignore[arg-type]


def test_the_tool() -> None:
    found = want(list[int])
    function = found.as_tool()["function"]
    assert function["name"] == found.name == "list_int"
    assert function["parameters"] == found.schema
    assert function["strict"] is True
    assert function["description"]


@pytest.mark.parametrize(
    ("kind", "how", "options", "chosen"),
    [
        (Person, "json_schema", {"tools": [MINE]}, "json_schema"),
        (Person, "tool", {}, "tool"),
        (Person, "tool", {"tools": []}, "tool"),
        (Person, "tool", {"tools": [MINE]}, "prompt"),
        (Person, "tool", {"functions": [{"name": "f"}]}, "prompt"),
        (Person, "tool", {"reasoning_effort": "high"}, "prompt"),
        (Person, "tool", {"reasoning_effort": "none", "thinking": {"type": "disabled"}}, "tool"),
        (Person, "tool", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "prompt"),
        (Person, "json_object", {"tools": [MINE]}, "json_object"),
        (Person, "prompt", {}, "prompt"),
        (list[int], "tool", {}, "tool"),
        ({"type": "array", "items": {"$ref": "#"}}, "tool", {}, "prompt"),
        ({"type": "json_object"}, "json_schema", {}, "json_object"),
        ({"type": "json_object"}, "tool", {}, "prompt"),
        ({"type": "json_object"}, "json_object", {}, "json_object"),
    ],
)
def test_a_way_that_would_break_the_call_is_not_taken(kind: Any, how: Any, options: Any, chosen: str) -> None:
    assert choose(want(kind), how, options) == chosen


def test_json_object_is_asked_just_as_it_was_given_where_the_provider_has_it() -> None:
    messages, options = apply(want({"type": "json_object"}), "json_object", MESSAGES, {"seed": 1})
    assert (messages, options) == (MESSAGES, {"seed": 1, "response_format": {"type": "json_object"}})
    messages, options = apply(want({"type": "json_object"}), "prompt", MESSAGES, {})
    assert options == {} and "one JSON object" in messages[0]["content"] and "schema" not in messages[0]["content"]


# What is made of the answer

ANN = '{"name": "Ann", "age": 3}'


def answer(content: str = "", *calls: ToolCall, finish_reason: str | None = "stop", **more: Any) -> LLMResponse:
    return LLMResponse(content, "m", finish_reason=finish_reason, tool_calls=list(calls), provider="acme", **more)


def test_parsed_is_set() -> None:
    response = answer(ANN)
    finish(want(Person), "json_schema", response)
    assert response.parsed == Person("Ann", 3)
    assert response.content == ANN


@pytest.mark.parametrize("finish_reason", ["tool_calls", "tool_use", "function_call", "stop", None])
@pytest.mark.parametrize("prose", ["", "Let me write that down."])
def test_the_forced_tools_arguments_become_the_content(finish_reason: str | None, prose: str) -> None:
    call = ToolCall.from_text("c1", "Person", ANN)
    response = answer(prose, call, finish_reason=finish_reason, native={"format": "x", "content": []})
    finish(want(Person), "tool", response)
    assert response.parsed == Person("Ann", 3)
    assert response.content == ANN
    assert response.tool_calls == []
    assert response.finish_reason == (finish_reason and "stop")
    assert response.message == {"role": "assistant", "content": ANN}, "no call without its result goes into the next turn"


def test_a_call_without_its_text_will_do() -> None:
    response = answer("", ToolCall("c", "Person", {"name": "Ann", "age": 3}))
    finish(want(Person), "tool", response)
    assert response.parsed == Person("Ann", 3)


def test_of_two_calls_of_the_forced_tool_the_first_counts() -> None:
    response = answer("", ToolCall.from_text("1", "Person", ANN), ToolCall.from_text("2", "Person", "{}"), finish_reason="tool_calls")
    finish(want(Person), "tool", response)
    assert response.parsed == Person("Ann", 3)
    assert (response.tool_calls, response.finish_reason) == ([], "stop")


def test_a_model_that_answers_in_text_instead_of_calling_is_understood() -> None:
    response = answer(ANN)
    finish(want(Person), "tool", response)
    assert response.parsed == Person("Ann", 3)


@pytest.mark.parametrize("how", ["json_schema", "tool", "prompt"])
@pytest.mark.parametrize("content", ["", "Let me look that up first."])
def test_a_call_of_the_users_own_tool_is_no_failure(how: Any, content: str) -> None:
    mine = ToolCall.from_text("1", "look_up", "{}")
    response = answer(content, mine, finish_reason="tool_calls")
    finish(want(Person), how, response)
    assert response.parsed is None
    assert (response.tool_calls, response.content, response.finish_reason) == ([mine], content, "tool_calls")
    beside = answer(ANN, mine)
    finish(want(Person), how, beside)
    assert beside.parsed == Person("Ann", 3)


@pytest.mark.parametrize(
    ("response", "said", "not_said"),
    [
        (answer("Sure, Ann is three."), ["it is not JSON", "it said: Sure, Ann is three."], ["max_tokens", "refused it"]),
        (answer('{"name": "Ann", "age"', finish_reason="length"), ["cut off at max_tokens: give more", '{"name": "Ann"'], ["refused it"]),
        (answer("", finish_reason="MAX_TOKENS"), ["it is empty", "cut off at max_tokens", "it said nothing"], []),
        (answer("", finish_reason="content_filter"), ["refused it", "'content_filter'"], ["max_tokens"]),
        (answer("I can't.", finish_reason="refusal"), ["refused it", "I can't."], ["max_tokens"]),
        (answer('{"name": "Ann", "age": "x"}'), ["$.age: Expected `int`, got `str`"], []),
        (answer("", ToolCall.from_text("1", "Person", '{"name": "Ann')), ["it is not JSON", '{"name": "Ann'], []),
        (answer("y" * 5000), ["y" * 199 + "…"], ["y" * 200]),
    ],
)
def test_what_does_not_fit_is_an_error_that_holds_all_of_it(response: LLMResponse, said: list[str], not_said: list[str]) -> None:
    response.wire = WireAnswer(200, "req-1")
    with pytest.raises(InvalidOutputError) as caught:
        finish(want(Person), "tool", response)
    error = caught.value
    for words in ["acme: ", "response_format", "repair=True asks once more", *said]:
        assert words in str(error)
    for words in not_said:
        assert words not in str(error)
    assert error.response is response
    assert response.parsed is None
    assert (error.provider, error.model, error.status, error.request_id) == ("acme", "m", 200, "req-1")
    assert isinstance(error.__cause__, UnfitError) and str(error.__cause__) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.response.content == response.content
    assert len(str(error)) < 800


def test_after_a_repair_none_is_proposed() -> None:
    with pytest.raises(InvalidOutputError, match="asked once more already") as caught:
        finish(want(Person), "prompt", answer("no"), repaired=True)
    assert "repair=True" not in str(caught.value)


def test_a_failing_class_does_not_lose_the_answer() -> None:
    response = answer('{"x": 2}')
    with pytest.raises(InvalidOutputError, match="KeyError") as caught:
        finish(want(Breaks), "json_schema", response)
    assert caught.value.response is response
    assert isinstance(caught.value.__cause__.__cause__, KeyError)


@pytest.mark.parametrize("how", ["json_schema", "tool", "json_object", "prompt"])
def test_asking_once_more(how: Any) -> None:
    found = want(Person)
    messages, _ = apply(found, how, MESSAGES, {})
    before = copy.deepcopy(messages)
    wrong = '{"name": "Ann", "age": "three"}'
    response = answer("", ToolCall.from_text("1", "Person", wrong), finish_reason="tool_calls") if how == "tool" else answer(wrong)
    with pytest.raises(InvalidOutputError) as caught:
        finish(found, how, response)
    again = repair_messages(messages, response, caught.value.__cause__)
    assert messages == before
    assert again[: len(messages)] == list(messages)
    assert again[-2] == {"role": "assistant", "content": wrong}
    assert again[-1]["role"] == "user" and "$.age: Expected `int`, got `str`" in again[-1]["content"]
    assert not any(message.get("tool_calls") or "_native" in message for message in again)


def test_asking_once_more_after_an_empty_answer_sends_no_empty_turn() -> None:
    again = repair_messages(MESSAGES, answer("  "), "it is empty")
    assert [message["role"] for message in again] == ["user", "user"]


# Streams


async def pieces_of(*pieces: Any) -> Any:
    for piece in pieces:
        yield piece


async def collected(how: Any, *pieces: Any) -> list[Any]:
    events: list[Any] = []
    async for piece in as_text(pieces_of(*pieces), how, "Person"):
        assert piece != []
        events += piece if isinstance(piece, list) else [piece]
    return events


@pytest.mark.parametrize("how", ["json_schema", "json_object", "prompt"])
async def test_a_stream_of_text_goes_through_untouched(how: Any) -> None:
    pieces = ["a", ["b", TextDelta("c")], ToolCallDelta(0, "1", "Person", "{}"), StreamEnd(finish_reason="tool_calls")]
    assert [piece async for piece in as_text(pieces_of(*pieces), how, "Person")] == pieces


async def test_the_forced_tools_arguments_are_the_text_of_the_stream() -> None:
    end = StreamEnd(finish_reason="tool_calls", model_name="m", native={"format": "x"})
    events = await collected(
        "tool",
        ReasoningDelta("hm"),
        ToolCallDelta(0, "1", "Person"),
        ToolCallDelta(0, arguments='{"name": '),
        [ToolCallDelta(0, arguments='"Ann", '), ToolCallDelta(0, arguments='"age": 3}'), AudioDelta(b"x")],
        end,
    )
    assert events == [
        ReasoningDelta("hm"),
        '{"name": ',
        '"Ann", ',
        '"age": 3}',
        AudioDelta(b"x"),
        StreamEnd(finish_reason="stop", model_name="m"),
    ]
    assert end.finish_reason == "tool_calls" and end.native == {"format": "x"}, "the provider's own event is as it was"


async def test_text_beside_the_call_is_no_part_of_the_answer_as_in_a_whole_one() -> None:
    call = ToolCallDelta(0, "1", "Person", ANN)
    events = await collected("tool", "Let me ", TextDelta("see."), call, "Done!", StreamEnd(finish_reason="tool_use"))
    assert events == [ANN, StreamEnd(finish_reason="stop")]


async def test_text_without_a_call_is_the_answer() -> None:
    assert await collected("tool", "{", ["}"], StreamEnd(finish_reason="stop")) == ["{}", StreamEnd(finish_reason="stop")]
    assert await collected("tool", "{", "}") == ["{}"]
    assert await collected("tool", StreamEnd(finish_reason="length")) == [StreamEnd(finish_reason="length")]


async def test_another_tools_call_goes_through_and_a_second_of_ours_does_not() -> None:
    other = [ToolCallDelta(1, "2", "look_up"), ToolCallDelta(1, arguments="{}")]
    second = [ToolCallDelta(2, "3", "Person", '{"name": "Bob"'), ToolCallDelta(2, arguments="}")]
    events = await collected("tool", ToolCallDelta(0, "1", "Person", ANN), *other, *second, StreamEnd(finish_reason="tool_calls"))
    assert events == [ANN, *other, StreamEnd(finish_reason="tool_calls")]


async def test_cut_off_stays_cut_off() -> None:
    events = await collected("tool", ToolCallDelta(0, "1", "Person", '{"na'), StreamEnd(finish_reason="length"))
    assert events == ['{"na', StreamEnd(finish_reason="length")]


async def test_a_whole_answer_in_place_of_a_stream() -> None:
    response = answer("Let me see.", ToolCall.from_text("1", "Person", ANN), finish_reason="tool_calls")
    assert await collected("tool", "Let me see.", response) == [ANN, response]
    assert (response.content, response.tool_calls, response.finish_reason) == (ANN, [], "stop")


@pytest.mark.parametrize("how", ["tool", "prompt"])
async def test_closing_the_text_closes_the_stream_behind_it(how: Any) -> None:
    closed = []

    async def source() -> Any:
        try:
            yield ToolCallDelta(0, "1", "Person", "{")
            yield "never"
        finally:
            closed.append(True)

    stream = as_text(source(), how, "Person")
    await stream.__anext__()
    await stream.aclose()
    assert closed == [True]


@pytest.mark.parametrize("how", ["tool", "prompt"])
async def test_an_error_of_the_stream_comes_through(how: Any) -> None:
    async def source() -> Any:
        yield ToolCallDelta(0, "1", "Person", "{")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        async for _ in as_text(source(), how, "Person"):
            pass


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.lists(st.text(max_size=5), max_size=8), st.lists(st.booleans(), max_size=8))
def test_however_the_arguments_are_cut_the_text_is_theirs(parts: list[str], together: list[bool]) -> None:
    import asyncio

    deltas: list[Any] = [ToolCallDelta(0, "1", "Person"), *(ToolCallDelta(0, arguments=part) for part in parts)]
    pieces: list[Any] = []
    for position, delta in enumerate(deltas):
        if pieces and position < len(together) and together[position]:
            pieces[-1] = [*(pieces[-1] if isinstance(pieces[-1], list) else [pieces[-1]]), delta]
        else:
            pieces.append(delta)
    events = asyncio.run(collected("tool", *pieces, StreamEnd(finish_reason="tool_calls")))
    assert "".join(events[:-1]) == "".join(parts)
    assert events[-1] == StreamEnd(finish_reason="stop")


# What it costs to have


def test_importing_it_is_light_and_pydantic_is_imported_only_for_its_own() -> None:
    script = """
import sys
import llm_master.structured as structured
assert not {"pydantic", "jsonschema_rs", "openai", "aiohttp"} & set(sys.modules), sys.modules.keys()
import attrs
@attrs.define
class A:
    x: int
assert structured.wanted(A).parse('{"x": 1}') == A(1)
assert structured.wanted(list[A]).parse('{"value": []}') == []
assert not {"pydantic", "jsonschema_rs"} & set(sys.modules)
structured.wanted({"type": "object"})
assert "pydantic" not in sys.modules and "jsonschema_rs" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd="/", env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)


# A real model, held to the schema by its server


class Size(enum.Enum):
    S = "s"
    M = "m"


@attrs.define
class Part:
    size: Size
    count: Literal[1, 2]
    spare: bool | None = None


@attrs.define
class Order:
    colour: Colour
    parts: tuple[Part, ...] = attrs.field(validator=attrs.validators.max_len(2))


class Shirt(pydantic.BaseModel):
    size: Size = pydantic.Field(description="As on the label.")
    colour: Literal["red", "blue"] = "red"
    washed: Optional[bool] = None


RAW = {"type": "object", "properties": {"size": {"enum": ["s", "m"]}}, "required": ["size"], "additionalProperties": False}


@pytest.mark.servers
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Part, Part),
        (Shirt, Shirt),
        (RAW, dict),
        (Size, Size),
        (Literal["a", "b"], str),
        (Optional[Part], (Part, type(None))),
        (Box[Size], Box[Size]),
    ],
)
async def test_a_real_server_holds_to_the_schema(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch, kind: Any, expected: Any) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    found = want(kind)
    messages, options = apply(found, "json_schema", MESSAGES, {"temperature": 0, "max_tokens": 1000})
    response = await QueryLLM().query("llamacpp/tiny", messages, **options)
    finish(found, "json_schema", response)
    assert isinstance(response.parsed, expected)


@pytest.mark.servers
async def test_a_real_server_calls_the_forced_tool_whole_and_in_a_stream(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    found = want(Part)
    messages, options = apply(found, "tool", MESSAGES, {"temperature": 0, "max_tokens": 1000})
    options["tool_choice"] = "required"  # of this server a named function is "auto"
    response = await QueryLLM().query("llamacpp/tiny", messages, **options)
    finish(found, "tool", response)
    assert isinstance(response.parsed, Part)
    assert (response.tool_calls, response.finish_reason) == ([], "stop")
    async with QueryLLM().stream("llamacpp/tiny", messages, **options) as stream:
        text = "".join(
            [piece async for piece in as_text((event async for event in stream.events()), "tool", found.name) if isinstance(piece, str)]
        )
    assert found.parse(text) == response.parsed


@pytest.mark.servers
async def test_a_real_model_that_answers_prose_where_json_was_asked(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_API_BASE", llama.base_url)
    found = want(Part)
    messages, options = apply(found, "prompt", MESSAGES, {"temperature": 0})
    response = await QueryLLM().query("llamacpp/tiny", messages, **options)
    with pytest.raises(InvalidOutputError, match="it is not JSON.*Hello from a tiny model") as caught:
        finish(found, "prompt", response)
    assert caught.value.response is response
    again = await QueryLLM().query("llamacpp/tiny", repair_messages(messages, response, caught.value.__cause__), temperature=0)
    assert again.content == response.content
