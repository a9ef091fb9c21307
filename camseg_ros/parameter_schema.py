"""A JSON Schema of the node's parameter file, made of the parameters' declarations: editors complete and check the file by it.

python -m camseg_ros.parameter_schema > config/segment.schema.json
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from camseg_ros.parameter_spec import Spec
from camseg_ros.parameters import MIDDLEWARE_OWN, SPECS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(specs: Iterable[Spec]) -> dict[str, Any]:
    """The schema (draft 2020-12) of a ROS parameter file with these parameters under `/**` or the node's name.

    It refuses what `Spec.check` refuses, but for two things that JSON does not know: it takes 2.0 for the integer 2, and it
    has no NaN, so that it does not see one. Parameters of one camera stand in a mapping under the camera's name. Entries for
    other nodes are left to them.
    """
    specs = list(specs)
    own = {spec.name: _value(spec) for spec in specs if getattr(spec, "per_camera", False)}
    camera = {
        "type": "object",
        "description": "What is different for the camera of this name.",
        "properties": own,
    }
    middleware = {
        name: {"type": "object" if name == "qos_overrides" else "boolean"}
        for name in MIDDLEWARE_OWN
    }
    return {
        "$schema": DIALECT,
        "title": "Parameters of camseg_ros",
        "$comment": "Made by `python -m camseg_ros.parameter_schema` of the declarations; change those.",
        "type": "object",
        "properties": {"/**": {"$ref": "#/$defs/node"}, "segmentation": {"$ref": "#/$defs/node"}},
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"ros__parameters": {"$ref": "#/$defs/parameters"}},
                "required": ["ros__parameters"],
                "additionalProperties": False,
            },
            "parameters": {
                "type": "object",
                "properties": {**{spec.name: _value(spec) for spec in specs}, **middleware},
                "additionalProperties": {**camera, "additionalProperties": False} if own else False,
            },
        },
    }


def _value(spec: Spec) -> dict[str, Any]:
    """The schema of one parameter's value."""
    default: object = spec.default
    if not isinstance(default, tuple):
        return {
            "description": spec.description,
            "default": default,
            **_type(default),
            **_range(spec),
        }
    entry = {**_type(default[0]), **_range(spec)}
    described = {
        "description": spec.description,
        "default": list(default),
        "type": "array",
        "items": entry,
    }
    # Strings may be any number; numbers belong to a place each, as the four of a region.
    return (
        described
        if isinstance(default[0], str)
        else {**described, "minItems": len(default), "maxItems": len(default)}
    )


def _type(value: object) -> dict[str, str]:
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[type(value)]}


def _range(spec: Spec) -> dict[str, Any]:
    """Choices or limits, where there are any."""
    if spec.limits:
        return {"minimum": spec.limits[0], "maximum": spec.limits[1]}
    if spec.several:
        one = "|".join(spec.choices)  # names of letters, digits and _ mean themselves in a pattern
        return {"pattern": rf"^\s*({one})\s*(,\s*({one})\s*)*$"}
    return {"enum": list(spec.choices)} if spec.choices else {}


def text() -> str:
    """What stands in `config/segment.schema.json`."""
    return json.dumps(schema(SPECS), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
