"""Checkpoint files of networks: weights with their configuration (safetensors: reading executes no code)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from klarsicht.burst.network import pretrained
from klarsicht.burst.network.unet import Network, NetworkSettings
from klarsicht.ground.errors import InputError, ModelError, UsageError
from klarsicht.ground.machine.disk import require_regular_file, write_atomically
from klarsicht.ground.user_arguments import check_arguments

KEY, FORMAT_VERSION = "klarsicht burst network", 1
RULE = "a network is a .safetensors file that `klarsicht burst train` wrote"


@dataclass(frozen=True)
class Card:
    """Metadata of a checkpoint: settings, and how the network was trained (plain JSON values)."""

    settings: NetworkSettings
    training: Mapping[str, Any]


def save_network(network: Network, path: Path, training: Mapping[str, Any], kind: torch.dtype = torch.float32) -> None:
    """Write a network to a file, which is replaced atomically; the same network and metadata give the same bytes. kind:
    dtype of the weights in the file. Raises DiskFull, StoreError."""
    state = {name: tensor.to(kind).cpu().contiguous() for name, tensor in network.state_dict().items()}
    about = {"version": FORMAT_VERSION, "settings": network.settings.model_dump(), "training": dict(training)}
    write_atomically(path, to_bytes(state, {KEY: json.dumps(about)}))  # one key: the order of several is random


def read_card(path: Path) -> Card:
    """Read the metadata of a checkpoint. Raises ModelError as `load_network` does."""
    return _read(path)[0]


@check_arguments
def load_network(path: str | Path, preset: str | None = None) -> Network:
    """Load a network from a file, or a shipped one by its name (`pretrained`), in evaluation mode, channels last, in 32
    bits. preset: the preset that the network must have; None: any.

    Raises UsageError where no shipped network has that name, or what is given is no path, and ModelError for a file
    that does not exist, holds no network of klarsicht, or one of another version or preset than wanted.
    """
    card, state = _read(path)
    if preset not in (None, card.settings.preset):
        got = f"preset {card.settings.preset} in {path}"
        raise ModelError("the network has another preset", got=got, rule=f"wanted is {preset}")
    network = Network(card.settings)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _unusable(Path(path), f"weights that do not fit preset {card.settings.preset}") from error
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _read(checkpoint: str | Path) -> tuple[Card, dict[str, torch.Tensor]]:
    path = pretrained.resolve_checkpoint(checkpoint)
    try:
        require_regular_file(path)
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, InputError) as error:
        raise _unusable(path, "no such file" if isinstance(error, FileNotFoundError) else error) from error
    if metadata is None:
        raise _unusable(path, "weights without our card")
    return _card(path, metadata), state


def _card(path: Path, text: str) -> Card:
    try:
        about = json.loads(text)
        if about["version"] != FORMAT_VERSION:
            raise _unusable(path, f"version {about['version']}; this is {FORMAT_VERSION}")
        return Card(NetworkSettings.from_mapping(about["settings"]), about["training"])
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, f"a card that cannot be read ({error})") from error


def _unusable(path: Path, got: object) -> ModelError:
    return ModelError(f"cannot load the network {path}", got=got, rule=RULE, remedy="Check the path, or train one.")
