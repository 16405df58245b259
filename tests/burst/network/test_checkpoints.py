"""Files of networks: what goes in comes out, to the byte, and everything else is one clear error."""

import json
import struct

import pytest
import torch

from klarsicht.burst.network.checkpoints import KEY, load_network, read_card, save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.ground.errors import ModelError

SETTINGS = NetworkSettings(preset="kpn", width=0.125, colour="rgb", frames=3)


@pytest.fixture
def written(tmp_path):
    network = build_network(SETTINGS, 0)
    save_network(network, tmp_path / "net.safetensors", {"steps": 7})
    return network, tmp_path / "net.safetensors"


def test_a_network_comes_back_with_its_settings_and_card(written):
    network, path = written
    again = load_network(path, "kpn")
    assert again.settings == SETTINGS
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert read_card(path).training == {"steps": 7}
    assert not again.training


def test_the_same_network_is_the_same_bytes(written, tmp_path):
    network, path = written
    save_network(network, tmp_path / "again.safetensors", {"steps": 7})
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_the_file_is_plain_safetensors(written):
    """Read by the letter of the format: eight bytes of length, a JSON header, then the numbers."""
    network, path = written
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    first, last = header["head.taps.bias"]["data_offsets"]
    numbers = torch.frombuffer(bytearray(data[8 + length + first : 8 + length + last]), dtype=torch.float32)
    assert torch.equal(numbers, network.head.taps.bias)
    assert json.loads(header["__metadata__"][KEY])["settings"]["preset"] == "kpn"


def edited(path, change):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def card(**changes):
    return lambda written: {KEY: json.dumps(json.loads(written[KEY]) | changes)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (card(version=2), "version 2"),
        (card(settings={"preset": "of tomorrow"}), "of tomorrow"),
        (card(settings=SETTINGS.with_values(width=0.25).model_dump()), "do not fit"),
        (lambda written: {}, "without our card"),
        (lambda written: {KEY: "{}}"}, "cannot be read"),
        (lambda written: {KEY: "[]"}, "cannot be read"),
    ],
)
def test_what_another_program_or_version_wrote_is_refused_by_name(written, change, told):
    _, path = written
    edited(path, change)
    with pytest.raises(ModelError, match=told):
        load_network(path)


def test_files_that_are_no_networks_are_refused(written, tmp_path):
    _, path = written
    torch.save({"a": torch.zeros(2)}, tmp_path / "net.pt")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    for name in ("net.pt", "cut.safetensors", "absent.safetensors", "."):
        with pytest.raises(ModelError, match="cannot load"):
            load_network(tmp_path / name)
    with pytest.raises(ModelError, match="preset kpn"):
        load_network(path, "swift")
