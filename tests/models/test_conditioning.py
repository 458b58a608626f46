"""Conditioning: slicing, joining and casting."""

from __future__ import annotations

import pytest
import torch

from t2ialign.models.conditioning import Conditioning


def sample(rows: int, start: int = 0) -> Conditioning:
    numbers = torch.arange(start, start + rows, dtype=torch.float32)
    return Conditioning(
        numbers.view(-1, 1, 1).expand(-1, 3, 2), numbers.view(-1, 1), numbers.view(-1, 1).expand(-1, 6)
    )


def first_column(conditioning: Conditioning) -> list[float]:
    assert conditioning.pooled is not None
    assert conditioning.time_ids is not None
    columns = conditioning.hidden[:, 0, 0], conditioning.pooled[:, 0], conditioning.time_ids[:, 0]
    assert torch.equal(columns[0], columns[1])
    assert torch.equal(columns[0], columns[2])
    return [float(value) for value in columns[0]]


def test_cat_then_index_gives_the_parts_back() -> None:
    both = Conditioning.cat([sample(2), sample(3, start=2)])
    assert len(both) == 5
    assert first_column(both) == [0, 1, 2, 3, 4]
    assert first_column(both.index(slice(2, 5))) == [2, 3, 4]
    assert first_column(both.index([4, 0])) == [4, 0]
    assert first_column(both.index(torch.tensor([True, False, False, True, False]))) == [0, 3]
    assert first_column(sample(2).repeat(2)) == [0, 1, 0, 1]


def test_text_only() -> None:
    text = Conditioning(torch.zeros(2, 3, 4))
    assert text.index([0]).pooled is None
    assert Conditioning.cat([text, text]).time_ids is None
    assert text.to(dtype=torch.float16).hidden.dtype == torch.float16


def test_sizes_stay_exact_in_half_precision() -> None:
    sizes = torch.tensor([[1023.0, 769, 3, 1, 1023, 769]])
    half = Conditioning(torch.ones(1, 1, 1), torch.ones(1, 1), sizes).to(dtype=torch.bfloat16)
    assert half.pooled is not None
    assert half.time_ids is not None
    assert half.pooled.dtype == torch.bfloat16
    assert torch.equal(half.time_ids, sizes)


def test_users_go_where_their_rows_go_and_stay_exact() -> None:
    user = torch.arange(24, dtype=torch.float32).view(2, 3, 4) + 70000
    given = sample(2).with_user(user)
    both = Conditioning.cat([given, given.index([1])])
    assert both.user is not None
    assert torch.equal(both.user, user[[0, 1, 1]])
    picked, repeated = both.index(torch.tensor([False, True, False])), given.repeat(2)
    assert picked.user is not None
    assert repeated.user is not None
    assert torch.equal(picked.user, user[1:])
    assert torch.equal(repeated.user, user.repeat(2, 1, 1))
    half = given.to(dtype=torch.float16)
    assert half.user is not None
    assert torch.equal(half.user, user)
    assert half.hidden.dtype == torch.float16
    sizes = given.with_time_ids(torch.ones(2, 6))
    assert sizes.user is user
    assert given.with_user(None).user is None
    with pytest.raises(ValueError, match=r"with and without users: 1 of 2 have them.*zeros"):
        Conditioning.cat([given, sample(1)])
    with pytest.raises(ValueError, match="user has 3 rows but hidden has 2"):
        sample(2).with_user(torch.zeros(3, 3, 4))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\[B, T, D\]"):
        sample(2).with_user(torch.zeros(2, 4))


def test_errors() -> None:
    with pytest.raises(ValueError, match="pooled has 3 rows but hidden has 2"):
        Conditioning(torch.zeros(2, 1, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="different families"):
        Conditioning.cat([sample(1), Conditioning(torch.zeros(1, 3, 2))])
    with pytest.raises(ValueError, match="empty"):
        Conditioning.cat([])
