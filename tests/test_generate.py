"""The published contract is what the models say, and is itself valid."""

import jsonschema
import pytest
import yaml

from schemas.envelope import MODELS
from schemas.generate import PUBLISHED, asyncapi, documents, json_schema
from tests.test_envelope import item


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_checked_in_file_has_not_drifted(name):
    assert (PUBLISHED / name).read_text(encoding="utf-8") == documents()[name], (
        "run `python -m schemas.generate`"
    )


def test_nothing_else_is_published():
    assert {path.name for path in PUBLISHED.iterdir()} == set(documents())


@pytest.mark.parametrize("type_", sorted(MODELS))
def test_schemas_are_valid_json_schema(type_):
    jsonschema.Draft202012Validator.check_schema(json_schema(type_))


def test_the_acquisition_schema_accepts_a_good_item_and_refuses_a_bad_one():
    validator = jsonschema.Draft202012Validator(json_schema("fr.millesimed.acquisition.v1"))
    validator.validate(item())
    assert list(validator.iter_errors(item(assets={})))


def test_asyncapi_names_every_topic_once_and_its_references_resolve():
    document = yaml.safe_load(yaml.safe_dump(asyncapi()))
    assert document["asyncapi"] == "3.0.0"
    addresses = [c["address"] for c in document["channels"].values()]
    assert sorted(addresses) == sorted(topic for topic, _ in MODELS.values())
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            name = message["$ref"].rpartition("/")[2]
            payload = document["components"]["messages"][name]["payload"]["schema"]["$ref"]
            assert (PUBLISHED / payload.removeprefix("./")).is_file()
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].rpartition("/")[2] in document["channels"]
