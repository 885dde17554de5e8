"""Generated schemas of tool arguments: everything that tools are described with, in every mixture."""

from __future__ import annotations

import random
from typing import Any

WORDS = (
    *(
        "host",
        "service",
        "größe",
        "пользователь",
        "ディスク",
        "naïve",
        "retention_days",
        "a b",
        "path/to",
        "x",
    ),
    *("ünïcødé", "emoji🙂", 'quoted"name', "back\\slash", "threshold", "labels", "mode", "größer als", "零"),
    "it's",
)
VALUES = (
    *("web-1", "db", "naïve", "größer", "日本", "🙂", 'a"b', "c:\\d", "", "line\nbreak", "tab\tbed", "true"),
    *("null", "1", "long value with spaces", "é", "</tool_call>", "{}", "[", "Ω≈ç"),
)
ASKED = (
    "Restart the web service on db1 as soon as possible.",
    "Bitte räume die Platte auf, sie ist zu 97 % voll.",
    "ログを調べてください。",
    "What uses so much memory? Write a long list of everything.",
    "Set the threshold to -12.75 and keep 30 days.",
    '{}[]"\\ </tool_call> <|im_end|> null',
    "Call the tool with every optional argument filled in.",
)


class Generator:
    """Makes schemas from a seed.

    Args:
        seed: The same one gives the same schema.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._defs: dict[str, Any] = {}

    def tool(self) -> dict[str, Any]:
        """Make the schema of a tool's arguments."""
        made = self._object(0, most=4)
        if self._defs:
            made["$defs"] = self._defs
        return made

    def question(self) -> str:
        """Make something to ask."""
        return " ".join(self._random.sample(ASKED, self._random.randint(1, 3)))

    def _schema(self, depth: int) -> dict[str, Any]:
        simple = (self._string, self._string, self._integer, self._number, self._enum, self._constant)
        simple += (lambda: {"type": "boolean"}, lambda: {"type": "null"}, self._either_type)
        nested = (self._object, self._object, self._array, self._array, self._any_of, self._reference)
        nested += (self._map, self._tuple)
        if depth >= 3 or self._random.random() < 0.55:
            return self._random.choice(simple)()
        return self._random.choice(nested)(depth + 1)

    def _object(self, depth: int, most: int = 3) -> dict[str, Any]:
        names = self._random.sample(WORDS, self._random.randint(0 if depth else 1, most))
        made: dict[str, Any] = {
            "type": "object",
            "properties": {name: self._schema(depth) for name in names},
            "required": [name for name in names if self._random.random() < 0.6],
        }
        if self._random.random() < 0.3:
            made["additionalProperties"] = False
        if self._random.random() < 0.3:
            made["description"] = self._random.choice(VALUES)
        return made

    def _map(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "object", "additionalProperties": self._schema(depth)}
        if self._random.random() < 0.5:
            made["maxProperties"] = self._random.randint(1, 3)
        if self._random.random() < 0.3:
            made["minProperties"] = 1
        return made

    def _array(self, depth: int) -> dict[str, Any]:
        least = self._random.randint(0, 2)
        made: dict[str, Any] = {"type": "array", "items": self._schema(depth), "minItems": least}
        if self._random.random() < 0.7:
            made["maxItems"] = least + self._random.randint(0, 2)
        return made

    def _tuple(self, depth: int) -> dict[str, Any]:
        parts = [self._schema(depth) for _ in range(self._random.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}

    def _any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self._schema(depth) for _ in range(self._random.randint(2, 3))]}

    def _reference(self, depth: int) -> dict[str, Any]:
        name = f"part-{len(self._defs)}"
        self._defs[name] = {}
        self._defs[name] |= self._schema(depth)
        if self._random.random() < 0.3:
            # One that may hold itself, and need not.
            again = {"$ref": f"#/$defs/{name}"}
            self._defs[name] = {
                "type": "object",
                "properties": {"value": self._defs[name], "below": {"anyOf": [{"type": "null"}, again]}},
                "required": ["value", "below"],
            }
        return {"$ref": f"#/$defs/{name}"}

    def _string(self) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "string"}
        kind = self._random.random()
        if kind < 0.5:
            least = self._random.randint(0, 3)
            made |= {"minLength": least, "maxLength": least + self._random.randint(0, 12)}
        elif kind < 0.65:
            patterns = (
                "^[a-z]{2,5}$",
                r"^\d{3}-[A-Z]$",
                "^/[a-z/]*$",
                "web",
                "^(alpha|beta|b)x?$",
                "^[äöü]+$",
            )
            made["pattern"] = self._random.choice(patterns)
        elif kind < 0.75:
            formats = ("date", "date-time", "uuid", "ipv4", "email", "hostname")
            made["format"] = self._random.choice(formats)
        return made

    def _integer(self) -> dict[str, Any]:
        return {"type": "integer"} | self._bounds(whole=True)

    def _number(self) -> dict[str, Any]:
        return {"type": "number"} | self._bounds(whole=False)

    def _bounds(self, *, whole: bool) -> dict[str, Any]:
        low = self._random.randint(-1000, 1000) / (1 if whole else self._random.choice((1, 4, 100)))
        high = low + self._random.randint(2, 5000) / (1 if whole else self._random.choice((1, 8)))
        low, high = (int(low), int(high)) if whole else (low, high)
        made: dict[str, Any] = {}
        if self._random.random() < 0.7:
            made[self._random.choice(("minimum", "exclusiveMinimum"))] = low
        if self._random.random() < 0.7:
            made[self._random.choice(("maximum", "exclusiveMaximum"))] = high
        if whole and self._random.random() < 0.2:
            made["multipleOf"] = 2
        return made

    def _enum(self) -> dict[str, Any]:
        values: list[Any] = self._random.sample(VALUES, self._random.randint(1, 5))
        if self._random.random() < 0.3:
            values += [None, 7, -1.5, True]
        return {"enum": values}

    def _constant(self) -> dict[str, Any]:
        return {"const": self._random.choice((*VALUES, 3, None, False))}

    def _either_type(self) -> dict[str, Any]:
        return {"type": self._random.sample(("string", "integer", "boolean", "null"), 2), "maxLength": 6}
