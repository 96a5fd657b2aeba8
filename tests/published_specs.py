"""Specs of published models by their papers and configs, as the records tell them."""

from __future__ import annotations

import dataclasses

from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, LatentAttention, Norm, Recurrent
from pentad.execution.positions import Alibi, Learned, RelativeBuckets, Rope, RopeScaling
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.execution.uniform import uniform_spec

RMS, LAYER = Norm(), Norm(kind="layer")
ALL_BIASES = frozenset({"qkv", "out", "ffn"})


def decoder(name: str, vocab: int, width: int, blocks: tuple[Block, ...], *, tied: bool = False) -> ModelSpec:
    """RMS norms, no positions but the layers'."""
    return ModelSpec(
        name=name,
        family=name,
        vocab_size=vocab,
        context_length=4096,
        stack=Stack(width=width, blocks=blocks, final_norm=blocks[0].norm),
        head=Head(tied=tied),
    )


def llama_3_8b() -> ModelSpec:
    scaled = RopeScaling(original_context=8192)
    return uniform_spec(
        name="llama-3.1-8b",
        family="llama",
        vocab_size=128_256,
        layers=32,
        width=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_width=14_336,
        context_length=131_072,
        positions=Rope(dim=128, base=500_000.0, scaling=scaled),
        tied_head=False,
    )


def qwen3_0_6b() -> ModelSpec:
    return uniform_spec(
        name="qwen3-0.6b",
        family="qwen3",
        vocab_size=151_936,
        layers=28,
        width=1024,
        heads=16,
        kv_heads=8,
        head_dim=128,
        ffn_width=3072,
        context_length=40_960,
        positions=Rope(dim=128, base=1_000_000.0),
        qk_norm=True,
    )


def mixtral_8x7b() -> ModelSpec:
    block = Block(
        mixer=Attention(heads=32, kv_heads=8, head_dim=128, positions=Rope(dim=128, base=1e6)),
        feed_forward=Experts(count=8, per_token=2, expert=FeedForward(width=14_336), scores="softmax_chosen"),
    )
    return decoder("mixtral-8x7b", 32_000, 4096, (block,) * 32)


def gemma_3_1b() -> ModelSpec:
    """Five layers in six see 512 tokens and turn by another base."""

    def block(window: int | None, rope: Rope) -> Block:
        return Block(
            mixer=Attention(
                heads=4,
                kv_heads=1,
                head_dim=256,
                window=window,
                positions=rope,
                qk_norm="head",
                scale=256**-0.5,
            ),
            feed_forward=FeedForward(width=6912, activation="gelu_tanh"),
            norm=Norm(eps=1e-6, offset=1.0),
            placement="both",
        )

    near, far = block(512, Rope(dim=256)), block(None, Rope(dim=256, base=1e6))
    spec = decoder(
        "gemma-3-1b", 262_144, 1152, tuple(far if i % 6 == 5 else near for i in range(26)), tied=True
    )
    return dataclasses.replace(spec, embedding_scale=1152**0.5)


def gemma_2_2b() -> ModelSpec:
    """Every other layer has a window; scores and logits are capped."""

    def block(window: int | None) -> Block:
        return Block(
            mixer=Attention(
                heads=8, kv_heads=4, head_dim=256, window=window, positions=Rope(dim=256), score_cap=50.0
            ),
            feed_forward=FeedForward(width=9216, activation="gelu_tanh"),
            norm=Norm(eps=1e-6, offset=1.0),
            placement="both",
        )

    spec = decoder("gemma-2-2b", 256_000, 2304, (block(4096), block(None)) * 13)
    return dataclasses.replace(spec, head=Head(cap=30.0), embedding_scale=2304**0.5)


def gpt_oss_20b() -> ModelSpec:
    """Sinks, biases everywhere, experts with a clamped activation. Its file keeps the experts in MXFP4."""

    def block(window: int | None) -> Block:
        return Block(
            mixer=Attention(
                heads=64,
                kv_heads=8,
                head_dim=64,
                window=window,
                positions=Rope(dim=64, base=150_000.0, scaling=RopeScaling(kind="yarn", factor=32.0)),
                qkv_bias=True,
                out_bias=True,
                sinks=True,
            ),
            feed_forward=Experts(
                count=32,
                per_token=4,
                expert=FeedForward(width=2880, bias=True, clamped=True),
                scores="softmax_chosen",
                router_bias="scores",
            ),
        )

    return decoder("gpt-oss-20b", 201_088, 2880, (block(128), block(None)) * 12)


def deepseek_v2_lite() -> ModelSpec:
    """Latent attention; the first layer is dense, the others have 64 experts and 2 shared ones."""

    def block(inner: FeedForward | Experts) -> Block:
        rope = Rope(dim=64, pairing="interleaved", scaling=RopeScaling(kind="yarn", factor=40.0))
        mixer = LatentAttention(heads=16, kv_rank=512, nope_dim=128, value_dim=128, rope=rope)
        return Block(mixer=mixer, feed_forward=inner, norm=Norm(eps=1e-6))

    experts = Experts(
        count=64, per_token=6, expert=FeedForward(width=1408), shared=FeedForward(width=2 * 1408)
    )
    blocks = (block(FeedForward(width=10_944)), *(block(experts),) * 26)
    return decoder("deepseek-v2-lite", 102_400, 2048, blocks)


def falcon_7b() -> ModelSpec:
    return uniform_spec(
        name="falcon-7b",
        family="falcon",
        vocab_size=65_024,
        layers=32,
        width=4544,
        heads=71,
        kv_heads=1,
        head_dim=64,
        ffn_width=4 * 4544,
        context_length=2048,
        positions=Rope(dim=64),
        norm=LAYER,
        activation="gelu",
        gated=False,
        parallel_block=True,
    )


def gpt_j_6b() -> ModelSpec:
    spec = uniform_spec(
        name="gpt-j-6b",
        family="gptj",
        vocab_size=50_400,
        layers=28,
        width=4096,
        heads=16,
        kv_heads=16,
        head_dim=256,
        ffn_width=16_384,
        context_length=2048,
        positions=Rope(dim=64, pairing="interleaved"),
        norm=LAYER,
        activation="gelu_tanh",
        gated=False,
        biases=frozenset({"ffn"}),
        parallel_block=True,
    )
    return dataclasses.replace(spec, head=Head(tied=False, bias=True))


def bloom_560m() -> ModelSpec:
    return uniform_spec(
        name="bloom-560m",
        family="bloom",
        vocab_size=250_880,
        layers=24,
        width=1024,
        heads=16,
        kv_heads=16,
        head_dim=64,
        ffn_width=4096,
        context_length=2048,
        positions=Alibi(),
        norm=LAYER,
        embedding_norm=True,
        activation="gelu_tanh",
        gated=False,
        biases=ALL_BIASES,
    )


def gpt_2() -> ModelSpec:
    return uniform_spec(
        name="gpt2",
        family="gpt2",
        vocab_size=50_257,
        layers=12,
        width=768,
        heads=12,
        kv_heads=12,
        head_dim=64,
        ffn_width=3072,
        context_length=1024,
        positions=Learned(max_positions=1024),
        norm=LAYER,
        activation="gelu_tanh",
        gated=False,
        biases=ALL_BIASES,
    )


def t5_small() -> ModelSpec:
    """An encoder, and a decoder that reads it; distances have buckets, scores no scale."""
    attention = Attention(heads=8, kv_heads=8, head_dim=64, scale=1.0)
    inner = FeedForward(width=2048, activation="relu", gated=False)
    norm = Norm(eps=1e-6)
    reading = Block(mixer=attention, feed_forward=inner, norm=norm)
    writing = dataclasses.replace(reading, cross=attention)
    return ModelSpec(
        name="t5-small",
        family="t5",
        vocab_size=32_128,
        context_length=512,
        stack=Stack(
            width=512,
            blocks=(writing,) * 6,
            relative=RelativeBuckets(bidirectional=False),
            final_norm=norm,
        ),
        head=Head(scale=512**-0.5),
        encoder=Stack(
            width=512, blocks=(reading,) * 6, relative=RelativeBuckets(), final_norm=norm, causal=False
        ),
    )


def mamba_2_130m() -> ModelSpec:
    mixer = Recurrent(rule="mamba2", heads=24, value_dim=64, groups=1, key_dim=128)
    return decoder("mamba2-130m", 50_288, 768, (Block(mixer=mixer, feed_forward=None),) * 24, tied=True)


def gated_delta_hybrid() -> ModelSpec:
    """Three recurrent layers to one that attends, as in Qwen3-Next; small."""
    inner = Experts(
        count=16, per_token=2, expert=FeedForward(width=64), shared=FeedForward(width=64), shared_gate=True
    )
    rule = Recurrent(rule="gated_delta", heads=8, value_dim=32, groups=4, key_dim=32, conv_bias=False)
    attention = Attention(
        heads=4, kv_heads=2, head_dim=64, positions=Rope(dim=16), qk_norm="head", output_gate=True
    )
    recurrent, attending = (Block(mixer=mixer, feed_forward=inner) for mixer in (rule, attention))
    return decoder("hybrid", 1000, 256, (*(recurrent,) * 3, attending) * 2)


def whisper_tiny() -> ModelSpec:
    """An encoder of sound with a stem of convolutions; keys have no bias."""
    attention = Attention(heads=6, kv_heads=6, head_dim=64, qkv_bias=True, out_bias=True, key_bias=False)
    inner = FeedForward(width=1536, activation="gelu", gated=False, bias=True)
    hearing = Block(mixer=attention, feed_forward=inner, norm=LAYER)
    writing = dataclasses.replace(hearing, cross=attention)
    return ModelSpec(
        name="whisper-tiny",
        family="whisper",
        vocab_size=51_865,
        context_length=448,
        stack=Stack(width=384, blocks=(writing,) * 4, positions=Learned(max_positions=448), final_norm=LAYER),
        encoder=Stack(
            width=384,
            blocks=(hearing,) * 4,
            positions=Learned(max_positions=1500),
            final_norm=LAYER,
            stem=((384, 80, 3), (384, 384, 3)),
            causal=False,
        ),
    )


def vit_b_16() -> Stack:
    """The tower alone, without its head of classes."""
    attention = Attention(heads=12, kv_heads=12, head_dim=64, qkv_bias=True, out_bias=True)
    inner = FeedForward(width=3072, activation="gelu", gated=False, bias=True)
    return Stack(
        width=768,
        blocks=(Block(mixer=attention, feed_forward=inner, norm=LAYER),) * 12,
        positions=Learned(max_positions=197),
        final_norm=LAYER,
        stem=((768, 3, 16, 16),),
        class_token=True,
        causal=False,
    )
