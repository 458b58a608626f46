from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.engine.packing import pack, unpack

plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=4)
tensors = st.lists(st.floats(-1, 1), max_size=3).map(torch.tensor)
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(states)
def test_a_state_survives_json_and_safetensors(state: Any) -> None:
    structure, parts = pack(state)
    back = unpack(json.loads(json.dumps(structure)), parts)
    assert repr(back) == repr(state)


def test_a_stranger_is_refused() -> None:
    with pytest.raises(TypeError, match="holds a set"):
        pack({"a": {1}})
