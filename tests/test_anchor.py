"""The anchor's terms: values and gradients against a slow float64 reference and against upstream's losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dinov2_noise.anchor import AnchorTerms, anchor_terms, cross_entropy

IMAGES, PROTOTYPES, LOCAL_CROPS, MASKED = 3, 11, 4, 7


def outputs(n_local_crops: int = LOCAL_CROPS, seed: int = 0) -> dict[str, Any]:
    """Student logits that want a gradient, targets, weights: float32, moderate values."""
    generator = torch.Generator().manual_seed(seed)

    def logits(n_rows: int) -> torch.Tensor:
        return torch.randn(n_rows, PROTOTYPES, generator=generator)

    return {
        "student_local": logits(n_local_crops * IMAGES).requires_grad_(),
        "student_global": logits(2 * IMAGES).requires_grad_(),
        "student_masked": logits(MASKED).requires_grad_(),
        "target_global": torch.softmax(logits(2 * IMAGES) / 0.5, dim=-1),
        "target_masked": torch.softmax(logits(MASKED) / 0.5, dim=-1),
        "masks_weight": torch.rand(MASKED, generator=generator),
        "n_local_crops": n_local_crops,
    }


STUDENT = ("student_local", "student_global", "student_masked")


def slow_terms(given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pair of rows at a time in float64, from the formulas of the loss."""

    def one(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        exponentials = torch.exp(student.double() / 0.1)
        return -sum(
            (target[k].double() * torch.log(exponentials[k] / exponentials.sum()) for k in range(PROTOTYPES)),
            start=torch.zeros((), dtype=torch.float64),
        )

    zero = torch.zeros((), dtype=torch.float64)
    local, global_, ibot = zero, zero, zero
    for crop in range(given["n_local_crops"]):
        for target in range(2):
            for image in range(IMAGES):
                student = given["student_local"][crop * IMAGES + image]
                local = local + one(student, given["target_global"][target * IMAGES + image]) / IMAGES
    for row in range(2 * IMAGES):
        global_ = global_ + 2 * one(given["student_global"][row], given["target_global"][row]) / (2 * IMAGES)
    for row in range(MASKED):
        weight = given["masks_weight"][row].double()
        ibot = ibot + weight * one(given["student_masked"][row], given["target_masked"][row]) / (2 * IMAGES)
    divisor = 2 + max(2 * given["n_local_crops"], 1)
    return local / divisor, global_ / divisor, ibot


@pytest.mark.parametrize("n_local_crops", [0, 1, 4])
def test_values_and_gradients_equal_a_slow_reference(n_local_crops: int) -> None:
    ours, slow = outputs(n_local_crops), outputs(n_local_crops)
    terms, expected = anchor_terms(**ours), slow_terms(slow)
    for term, value in zip(terms, expected, strict=True):
        assert term.dtype == torch.float32
        torch.testing.assert_close(term.double(), value, rtol=1e-5, atol=1e-6)
    terms.total.backward()
    sum(expected, start=torch.zeros(())).backward()
    for name in STUDENT:
        expected_gradient = torch.zeros_like(slow[name]) if slow[name].grad is None else slow[name].grad
        gradient = torch.zeros_like(ours[name]) if ours[name].grad is None else ours[name].grad
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.upstream
@pytest.mark.parametrize("n_local_crops", [1, 8])
def test_values_and_gradients_equal_upstreams_losses(n_local_crops: int) -> None:
    losses = pytest.importorskip("dinov2.loss")
    ours, theirs = outputs(n_local_crops, seed=1), outputs(n_local_crops, seed=1)
    dino, ibot = losses.DINOLoss(PROTOTYPES), losses.iBOTPatchLoss(PROTOTYPES)
    n_terms = 2 * n_local_crops + 2
    targets = theirs["target_global"].view(2, IMAGES, PROTOTYPES)
    local = dino(theirs["student_local"].chunk(n_local_crops), targets) / n_terms
    global_ = dino([theirs["student_global"]], [targets.flatten(0, 1)]) * 2 / n_terms
    masks = torch.zeros(2 * IMAGES, 5, dtype=torch.bool)  # one row per global crop: upstream divides by their number
    patches = ibot.forward_masked(
        theirs["student_masked"],
        theirs["target_masked"],
        student_masks_flat=masks,
        n_masked_patches=MASKED,
        masks_weight=theirs["masks_weight"],
    )
    expected = (local, global_, patches * 2 * 0.5)
    terms = anchor_terms(**ours, n_images_masked_denominator=len(masks))
    for term, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(term, value, rtol=1e-5, atol=1e-6)
    terms.total.backward()
    sum(expected, start=torch.zeros(())).backward()
    for name in STUDENT:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


def test_weight_0_changes_neither_loss_nor_gradient() -> None:
    plain, anchored = outputs(), outputs()
    main = plain["student_global"].square().mean() + plain["student_local"].square().mean()
    main.backward()
    with_anchor = anchored["student_global"].square().mean() + anchored["student_local"].square().mean()
    with_anchor = with_anchor + 0.0 * anchor_terms(**anchored).total
    with_anchor.backward()
    assert torch.equal(with_anchor, main)
    assert torch.equal(anchored["student_global"].grad, plain["student_global"].grad)
    assert torch.equal(anchored["student_local"].grad, plain["student_local"].grad)
    assert torch.equal(anchored["student_masked"].grad, torch.zeros(MASKED, PROTOTYPES))


def test_no_gradient_reaches_the_targets() -> None:
    given = outputs()
    for name in ("target_global", "target_masked"):
        given[name] = given[name].clone().requires_grad_()
    anchor_terms(**given).total.backward()
    assert given["target_global"].grad is None
    assert given["target_masked"].grad is None
    assert all(given[name].grad.abs().sum() > 0 for name in STUDENT)


def test_without_ibot_the_third_term_is_0() -> None:
    given = outputs()
    with_ibot = anchor_terms(**given)
    without = anchor_terms(**(given | {"student_masked": None, "target_masked": None, "masks_weight": None}))
    assert without.ibot == 0
    assert torch.equal(without.dino_local, with_ibot.dino_local)
    assert torch.equal(without.total, with_ibot.dino_local + with_ibot.dino_global)


def test_no_masked_patch_in_a_batch_gives_0_not_nan() -> None:
    empty = {"student_masked": torch.zeros(0, PROTOTYPES), "target_masked": torch.zeros(0, PROTOTYPES)}
    assert anchor_terms(**(outputs() | empty | {"masks_weight": torch.zeros(0)})).ibot == 0


def test_an_agreeing_student_reaches_the_entropy_which_is_the_minimum() -> None:
    given = outputs()
    target = given["target_global"]
    student = (0.1 * target.log()).requires_grad_()  # softmax(student / 0.1) = target
    entropy = -(target * target.log()).sum(dim=-1)
    loss = cross_entropy(student, target)
    torch.testing.assert_close(loss, entropy)
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(target), rtol=0, atol=1e-5)


def test_a_uniform_student_costs_ln_k() -> None:
    loss = cross_entropy(torch.zeros(5, PROTOTYPES), torch.softmax(torch.randn(5, PROTOTYPES), dim=-1))
    torch.testing.assert_close(loss, torch.full((5,), math.log(PROTOTYPES)))


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    student = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float16) * 100
    target = torch.tensor([[0.25, 0.25, 0.5]])
    loss = cross_entropy(student.requires_grad_(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(student.detach().float(), target))
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad.dtype == torch.float16


def test_terms_need_no_centre_of_their_own_order() -> None:
    # the caller swaps the targets; with unswapped ones the global term differs, the local one does not
    given = outputs()
    swapped = torch.cat(given["target_global"].chunk(2)[::-1])
    first, second = anchor_terms(**given), anchor_terms(**(given | {"target_global": swapped}))
    torch.testing.assert_close(first.dino_local, second.dino_local)
    assert not torch.allclose(first.dino_global, second.dino_global)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"student_local": torch.zeros(5, PROTOTYPES)}, r"student_local is \(5, 11\), but 4 local crops of 3 images"),
        ({"student_local": None}, r"student_local is \(0, 11\), but 4 local crops"),
        ({"target_global": torch.zeros(4, PROTOTYPES)}, r"target_global \(4, 11\) must both be"),
        ({"target_masked": None}, "come together"),
        ({"masks_weight": None}, "come together"),
        ({"masks_weight": torch.zeros(MASKED + 1)}, r"masks_weight \(8,\) do not match"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        anchor_terms(**(outputs() | changed))


def test_total_is_the_sum() -> None:
    assert AnchorTerms(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)).total == 7
