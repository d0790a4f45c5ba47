"""Pairs on the wire: what comes back is what went, within the error that is stated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.errors import PairsError
from core.pairs import Pairs, decode, encode, stream_key


def make(rows: int = 5, dim: int = 4, scale: float = 1.0, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    users, positives = scale * torch.randn(2, rows, dim, generator=generator)
    return Pairs("demo", "20261121T081301-abc", users, 3 * positives, 1763712781.25)


def excess(got: Tensor, sent: Tensor) -> float:
    """How many times the stated error the largest error is."""
    rms = sent.double().square().mean().sqrt()
    # float32 rounds the quotient and the product as well.
    stated = torch.maximum(2.0**-11 * sent.double().abs(), 2.0**-25 * rms) * (1 + 2.0**-10)
    return float(((got.double() - sent.double()).abs() / stated).max())


@given(
    rows=st.integers(1, 40),
    dim=st.integers(1, 70),
    exponent=st.integers(-29, 28),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None)
def test_a_round_trip_is_within_the_stated_error(rows, dim, exponent, seed):
    sent = make(rows, dim, 10.0**exponent, seed)
    got = decode(encode(sent))
    assert (got.model, got.version, got.at) == (sent.model, sent.version, sent.at)
    assert got.users.dtype == got.positives.dtype == torch.float32
    assert excess(got.users, sent.users) <= 1
    assert excess(got.positives, sent.positives) <= 1


def test_the_stated_error_is_tight_and_needs_the_scale():
    """Negative control: half the bound fails, and so does float16 without a scale."""
    sent = make(200, 64, 1e-6)
    got = decode(encode(sent))
    assert 0.5 < excess(got.users, sent.users) <= 1
    assert excess(sent.users.half().float(), sent.users) > 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_floats_are_taken(dtype):
    sent = make()
    narrow = Pairs(sent.model, sent.version, sent.users.to(dtype), sent.positives.to(dtype), 0.0)
    assert excess(decode(encode(narrow)).users, narrow.users.float()) <= 1


def test_zeros_one_row_and_an_outlier():
    users = torch.zeros(1, 3)
    positives = torch.tensor([[1e4, 0.0, 1.0]])
    got = decode(encode(Pairs("m", "v", users, positives, 0.0)))
    assert torch.equal(got.users, users)
    assert excess(got.positives, positives) <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 1e-38])
def test_what_float16_cannot_carry_is_refused(value):
    sent = make()
    spoilt = Pairs("m", "v", sent.users, torch.full_like(sent.users, value), 0.0)
    with pytest.raises(PairsError, match="positives has an RMS of"):
        encode(spoilt)


def test_no_rows_are_refused():
    nothing = torch.zeros(0, 4)
    with pytest.raises(PairsError, match="at least one row"):
        encode(Pairs("m", "v", nothing, nothing, 0.0))


@given(data=st.data(), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=300)
def test_any_altered_byte_is_refused_or_leaves_the_shapes_right(data, seed):
    fields = encode(make(rows=3, dim=2, seed=seed))
    name = data.draw(st.sampled_from(sorted(fields)))
    content = bytearray(fields[name])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    fields[name] = bytes(content)
    try:
        got = decode(fields)
    except PairsError:
        return
    assert got.users.shape == got.positives.shape == (3, 2)
    assert torch.isfinite(got.users).all()
    assert torch.isfinite(got.positives).all()


@given(data=st.data())
@settings(deadline=None)
def test_an_entry_that_is_cut_short_is_refused(data):
    fields = encode(make())
    name = data.draw(st.sampled_from([b"users", b"positives", b"rows", b"dim", b"schema"]))
    fields[name] = fields[name][: data.draw(st.integers(0, len(fields[name]) - 1))]
    with pytest.raises(PairsError):
        decode(fields)


@pytest.mark.parametrize("name", sorted(encode(make())))
def test_an_entry_without_a_field_is_refused(name):
    fields = encode(make())
    del fields[name]
    with pytest.raises(PairsError, match=f"without {name.decode()}:"):
        decode(fields)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (b"schema", b"2", "schema b'2'; this program reads 1"),
        (b"model", b"../up", "model of a stream entry"),
        (b"version", b"\xff", "version of a stream entry"),
        (b"rows", b"-5", "rows = b'-5'"),
        (b"rows", b"9" * 5000, "a whole number above 0"),
        (b"dim", b"0", "dim = b'0'"),
        (b"at", b"nan", "at = b'nan'"),
        (b"at", b"-1.0", "at least 0"),
        (b"users_scale", b"-1.0", "users_scale = -1.0"),
        (b"users_scale", b"1e99", "users_scale = 1e[+]99"),
        (b"users", b"\x00\x7c" * 20, "users has a NaN or an infinity"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name, content, message):
    with pytest.raises(PairsError, match=message):
        decode(encode(make()) | {name: content})


def test_what_is_added_later_is_passed_over():
    assert decode(encode(make()) | {b"later": b"x"}).model == "demo"


def test_names_keep_streams_apart():
    assert stream_key("a") == "turnpoint:pairs:a" != stream_key("b")
