from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pydantic import ValidationError

from limner.core.errors import UserError
from limner.methods.lora import Lora
from limner.methods.pivotal import Pivotal
from limner.methods.textual_inversion import TextualInversion
from limner.models.sd1 import SD1, SD1Model
from limner.training.optimizers import AdamW, Muon, OptimizerConfig
from tests.tiny import save_tiny

PROMPTS = ["a photo of <toy> on the moon", "a red circle"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(folder: Path) -> SD1Model:
    return SD1(path=str(folder)).load()


def states(model: SD1Model, prompts: list[str]) -> torch.Tensor:
    return model.encode_prompts(prompts)["encoder_hidden_states"]


def word(vectors: int = 1, initialise: str = "dog") -> TextualInversion:
    return TextualInversion(token="<toy>", vectors=vectors, initialise=initialise)


def take_steps(model: SD1Model, params: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for step in range(3):
        optimizer.zero_grad()
        noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(step))
        prediction = model.predict(noise, torch.tensor([100, 500]), model.encode_prompts(PROMPTS))
        (prediction - 1).square().mean().backward()
        optimizer.step()
    assert all(bool(parameter.grad.any()) for parameter in params if parameter.grad is not None)


@pytest.mark.parametrize(
    "optimizer", [AdamW(lr=0.1, weight_decay=0.5), Muon(lr=0.1, weight_decay=0.5)], ids=["adamw", "muon"]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_bit_of_the_model_moves_but_the_new_vectors(
    model: SD1Model, optimizer: OptimizerConfig, checkpointing: bool
) -> None:
    before = {f"{part}.{n}": v.clone() for part, net in model.networks.items() for n, v in net.state_dict().items()}
    trainable = word(vectors=2).apply(model, seed=0)
    if checkpointing:
        model.checkpoint_gradients()
    model.train_mode(trainable.parts)
    start = [parameter.detach().clone() for parameter in trainable.params.values()]
    built = optimizer.build([{"params": list(trainable.params.values()), "lr": 0.1}])
    take_steps(model, list(trainable.params.values()), built)
    after = {f"{part}.{n}": v for part, net in model.networks.items() for n, v in net.state_dict().items()}
    assert after.keys() - before.keys() == set(trainable.params)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not torch.equal(a, b) for a, b in zip(start, trainable.params.values(), strict=True))
    assert {id(key) for key in built.state} == {id(parameter) for parameter in trainable.params.values()}
    sizes = {value.numel() for state in built.state.values() for value in state.values() if torch.is_tensor(value)}
    assert max(sizes) == 32  # one vector, never the table


def test_the_vectors_are_read_as_the_pipeline_of_diffusers_reads_them(model: SD1Model, folder: Path) -> None:
    trainable = word(vectors=3).apply(model, seed=0)
    for number, parameter in enumerate(trainable.params.values()):
        parameter.data += 0.1 * (number + 1)
    rows = torch.stack([parameter.detach() for parameter in trainable.params.values()])
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.load_textual_inversion({"<toy>": rows})
    with torch.no_grad():
        assert torch.equal(states(model, PROMPTS), pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0])
        through = model.pipeline().encode_prompt(PROMPTS, "cpu", 1, False)[0]
        assert torch.equal(through, states(model, PROMPTS))


def test_a_new_word_begins_as_the_other_word_and_changes_no_prompt_without_it(model: SD1Model) -> None:
    with torch.no_grad():
        dog, circle = states(model, ["a photo of dog on the moon", "a red circle"])
        trainable = word().apply(model, seed=0)
        toy, still = states(model, PROMPTS)
        assert torch.equal(toy, dog)
        assert torch.equal(still, circle)
        for parameter in trainable.params.values():
            parameter.data += 1
        toy, still = states(model, PROMPTS)
    assert not torch.allclose(toy, dog)
    assert torch.equal(still, circle)


def test_several_vectors_begin_as_one_word_or_as_the_words_in_their_order(model: SD1Model, folder: Path) -> None:
    table = model.text_encoder.get_input_embeddings().weight.detach().clone()
    dog, red = (int(n) for n in model.tokenizer("dog red", add_special_tokens=False).input_ids)
    in_order = word(vectors=2, initialise="dog red").apply(model, seed=0)
    assert torch.equal(torch.stack(list(in_order.params.values())), table[[dog, red]])
    alike = word(vectors=3).apply(SD1(path=str(folder)).load(), seed=0)
    assert torch.equal(torch.stack(list(alike.params.values())), table[[dog, dog, dog]])


@pytest.mark.parametrize("vectors", [1, 2])
def test_a_word_that_is_cut_to_pieces_is_refused_with_the_pieces(model: SD1Model, vectors: int) -> None:
    with pytest.raises(
        UserError, match=r"initialise: 'grey'? ?dog' is cut into 3 tokens \('gre', 'y</w>', 'dog</w>'\)"
    ):
        word(vectors=vectors, initialise="grey dog").apply(model, seed=0)
    assert "<toy>" not in model.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("dog", r"has 'dog' as a word already \(id \d+\)"),
        ("<Toy>", r"reads '<Toy>' as '<toy>'"),
        ("<|endoftext|>", r"has '<\|endoftext\|>' as a word already"),
        ("text", r"'text' and the word '<\|startoftext\|>' lie one in the other"),
        ("<old>", r"has '<old>' as a word already"),
        ("<half>", r"has '<half>_1' already"),
        ("<x><old>", "'<x><old>' and the word '<old>' lie one in the other"),
    ],
)
def test_a_word_that_would_not_be_a_new_one_is_refused(model: SD1Model, token: str, message: str) -> None:
    model.tokenizer.add_tokens(["<old>", "<half>_1"])
    words = len(model.tokenizer)
    with pytest.raises(UserError, match=rf"method\.token: .*{message}"):
        TextualInversion(token=token, initialise="dog").apply(model, seed=0)
    assert len(model.tokenizer) == words


@pytest.mark.parametrize("token", ["", "my dog", " <toy>", "<toy>\n", "<toy>_1"])
def test_what_is_no_word_is_refused_by_the_config(token: str) -> None:
    for method in (TextualInversion, Pivotal):
        with pytest.raises(ValidationError, match="token"):
            method(token=token, initialise="dog")


def test_on_a_base_in_half_precision_the_vectors_keep_float32_and_the_base_its_numbers(model: SD1Model) -> None:
    model.to(torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        before = states(model, PROMPTS[1:])
    trainable = word().apply(model, seed=0)
    (parameter,) = trainable.params.values()
    parameter.data += torch.linspace(0, 1e-4, 32)
    exact = parameter.detach().clone()
    model.to(torch.device("cpu"), torch.bfloat16)
    assert trainable.params == dict(
        (f"text_encoder.{n}", p) for n, p in model.text_encoder.named_parameters() if p.requires_grad
    )
    assert parameter.dtype == torch.float32
    assert torch.equal(parameter, exact)
    assert model.text_encoder.dtype == torch.bfloat16
    with torch.no_grad():
        after = states(model, PROMPTS[1:])
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, before)


def test_the_hashes_are_those_of_the_base(model: SD1Model, folder: Path) -> None:
    identity = model.identity()
    word(vectors=2).apply(model, seed=0)
    assert model.identity() == identity == SD1(path=str(folder)).load().identity()


def test_a_table_longer_than_the_vocabulary_keeps_its_rows(folder: Path) -> None:
    model = SD1(path=str(folder)).load()
    table = model.text_encoder.get_input_embeddings().weight.detach()
    padded = torch.cat([table, torch.full((8, 32), 7.0)])
    model.text_encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(padded))
    plain = SD1(path=str(folder)).load()
    for one in (model, plain):
        word(vectors=2).apply(one, seed=0)
    with torch.no_grad():
        assert torch.equal(states(model, PROMPTS), states(plain, PROMPTS))


# -------------------------------------------------------------------------------------------------- pivotal tuning
def test_pivotal_trains_what_its_two_halves_train_each_with_its_own_rate(model: SD1Model, folder: Path) -> None:
    method = Pivotal(
        token="<toy>",
        vectors=2,
        initialise="dog",
        lora=Lora(rank=2, text_encoder=True, text_encoder_lr_scale=0.5),
        token_lr_scale=7,
    )
    trainable = method.apply(model, seed=3)
    alone = method.lora.apply(SD1(path=str(folder)).load(), seed=3)
    words = method.word.apply(SD1(path=str(folder)).load(), seed=3)
    assert trainable.params.keys() == alone.params.keys() | words.params.keys()
    for half in (alone, words):
        assert all(torch.equal(trainable.params[name], value) for name, value in half.params.items())
    training = {f"{p}.{n}" for p, net in model.networks.items() for n, v in net.named_parameters() if v.requires_grad}
    assert set(trainable.params) == training
    assert {name: trainable.lr_scales.get(name, 1) for name in trainable.groups} == {
        "unet": 1,
        "text_encoder": 0.5,
        "placeholder": 7,
    }
    grouped = [id(parameter) for members in trainable.groups.values() for parameter in members]
    assert sorted(grouped) == sorted(map(id, trainable.params.values()))
    assert len(trainable.groups["placeholder"]) == 2


def test_a_target_of_the_inner_lora_is_named_by_its_own_key(model: SD1Model) -> None:
    method = Pivotal(token="<toy>", initialise="dog", lora=Lora(targets=("to_qq",)))
    with pytest.raises(UserError, match=r"method\.lora\.targets: 'to_qq' matches no layer"):
        method.check_targets({"unet": model.denoiser, **model.text_encoders})
