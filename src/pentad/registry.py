"""The name table: family and name to "module:Attribute" or "module", imported on use.

Nothing is imported when the table is read, so the CLI, the docs and the tests can list every
strategy at no cost. Each layer adds its families in its own section below. Other packages add
strategies through the entry-point group `pentad.strategies`, named `family.name`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pentad.errors import UnknownName
from pentad.types import Layer

ENTRY_POINTS = "pentad.strategies"
"""Group of entry points through which other packages add strategies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One interface whose strategies people choose by name."""

    layer: Layer
    interface: str
    """The Protocol, as `module:Class`."""
    baseline: str
    """What is taken where nobody chooses; `none` where nothing is."""
    chosen_by: tuple[str, ...]
    """Settings leaves (`engine.scheduler`), what verbs take (`plan --strategy`, `eval SUITE`) and agent keys
    (`agent: planner`)."""
    about: str
    """What a strategy of it decides, in one line."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "planner": Family(
            layer="agent",
            interface="pentad.agent.planning.base:Planner",
            baseline="react",
            chosen_by=("agent: planner",),
            about="what an agent asks the model next, and what the answer means",
        ),
        "tool_policy": Family(
            layer="agent",
            interface="pentad.agent.tools.policy.base:ToolPolicy",
            baseline="all",
            chosen_by=("agent: tool_policy",),
            about="which of an agent's tools the model is offered at a step, and in which order",
        ),
        "tool_wrapper": Family(
            layer="agent",
            interface="pentad.agent.tools.wrapping.base:ToolWrapper",
            baseline="plain",
            chosen_by=("agent: wrap",),
            about="what stands between an agent and its tools: kept results, a student, calls put together",
        ),
        "sandbox": Family(
            layer="agent",
            interface="pentad.agent.tools.sandbox.base:Sandbox",
            baseline="bubblewrap",
            chosen_by=("agent: sandbox",),
            about="where code that a model wrote is run, and what it can reach",
        ),
        "environment": Family(
            layer="agent",
            interface="pentad.agent.environment.base:Environment",
            baseline="local",
            chosen_by=("agent: environment",),
            about="where an agent's tools act: the real world, a record of it or a simulation",
        ),
        "suite": Family(
            layer="agent",
            interface="pentad.agent.evaluation.base:Suite",
            baseline="none",
            chosen_by=("eval SUITE",),
            about="which cases an agent is evaluated on, and how their outcome is judged",
        ),
        "context": Family(
            layer="agent",
            interface="pentad.agent.context_builders.base:ContextBuilder",
            baseline="compact",
            chosen_by=("agent: context",),
            about="how a prompt is made to fit its token budget, and what is left out",
        ),
        "coordinator": Family(
            layer="agent",
            interface="pentad.agent.coordination.base:Coordinator",
            baseline="single",
            chosen_by=("agent: coordinator",),
            about="who of several agents does what next",
        ),
        "memory": Family(
            layer="agent",
            interface="pentad.agent.memory.base:MemoryStrategy",
            baseline="store",
            chosen_by=("agent: memory.store",),
            about="what an agent keeps beyond a prompt, and what of it comes back",
        ),
        "router": Family(
            layer="model",
            interface="pentad.model.routing.base:ModelRouter",
            baseline="fixed",
            chosen_by=("router",),
            about="which of the served models answers a request",
        ),
        "reducer": Family(
            layer="model",
            interface="pentad.model.reduction.base:TokenReducer",
            baseline="none",
            chosen_by=("agent: reduce",),
            about="what of a long tool result the model reads",
        ),
        "speculator": Family(
            layer="model",
            interface="pentad.model.speculation.base:DraftStrategy",
            baseline="none",
            chosen_by=("engine.speculation",),
            about="who drafts tokens ahead, for several to be verified in one step",
        ),
        "kv_policy": Family(
            layer="model",
            interface="pentad.execution.kv.policy:KVPolicy",
            baseline="keep-all",
            chosen_by=("engine.kv_policy", "simulate --kv-policy"),
            about="which cached keys and values of a sequence stay",
        ),
        "attention_filter": Family(
            layer="model",
            interface="pentad.execution.attention_filter:AttentionFilter",
            baseline="unfiltered",
            chosen_by=("engine.attention_filter",),
            about="which cached positions a step attends to",
        ),
        "kv_eviction": Family(
            layer="resource",
            interface="pentad.execution.kv.eviction:KVEviction",
            baseline="least-recent",
            chosen_by=("engine.kv_eviction", "simulate --kv-eviction"),
            about="which cached texts stay over the pauses of their runs",
        ),
        "transform": Family(
            layer="model",
            interface="pentad.model.transforms.base:ModelTransform",
            baseline="round-to-nearest",
            chosen_by=("compress --method",),
            about="how a model is made smaller or otherwise another form of itself",
        ),
        "metric": Family(
            layer="model",
            interface="pentad.model.certification.base:Metric",
            baseline="kl",
            chosen_by=("certify --metric",),
            about="what a certificate tells of a model beside the one that it was made from",
        ),
        "kernel": Family(
            layer="execution",
            interface="pentad.execution.kernels.base:Kernel",
            baseline="torch",
            chosen_by=("engine.kernels",),
            about="which set of op implementations computes a model's steps",
        ),
        "residency": Family(
            layer="execution",
            interface="pentad.execution.residency.base:WeightResidency",
            baseline="mapped",
            chosen_by=("engine.residency",),
            about="which weights lie where: in memory of the process or in a mapped file",
        ),
        "expert_cache": Family(
            layer="execution",
            interface="pentad.execution.expert_cache.base:ExpertPolicy",
            baseline="recent",
            chosen_by=("engine.expert_memory",),
            about="which experts of a mixture stay in a bounded memory, and which are brought ahead",
        ),
        "recipe": Family(
            layer="model",
            interface="pentad.execution.training:TrainRecipe",
            baseline="fine-tune",
            chosen_by=("train --recipe",),
            about="how a model learns from a text, alone or from a teacher",
        ),
        "scheduler": Family(
            layer="resource",
            interface="pentad.execution.scheduling:BatchScheduler",
            baseline="sarathi",
            chosen_by=("engine.scheduler", "simulate --scheduler"),
            about="which sequences compute how many tokens in the next step",
        ),
        "placement": Family(
            layer="resource",
            interface="pentad.resource.placement.base:PlacementPlanner",
            baseline="single",
            chosen_by=("plan --strategy", "simulate --strategy"),
            about="which device runs which part of a model",
        ),
        "transport": Family(
            layer="execution",
            interface="pentad.execution.transport.base:Transport",
            baseline="shared-memory",
            chosen_by=("engine.transport",),
            about="how messages and bytes travel between the server and the processes of its engines",
        ),
        "codec": Family(
            layer="execution",
            interface="pentad.execution.codecs.base:Codec",
            baseline="plain",
            chosen_by=("engine.parallel_codec",),
            about="how hidden states are written between the processes that compute one model together",
        ),
        "launcher": Family(
            layer="resource",
            interface="pentad.resource.launching.base:Launcher",
            baseline="none",
            chosen_by=("plan --launch",),
            about="the commands and settings by which another engine carries a plan out",
        ),
        "offload": Family(
            layer="resource",
            interface="pentad.resource.offloading.base:OffloadPolicy",
            baseline="local",
            chosen_by=("simulate --offload", "router"),
            about="at which site a request is computed: here, on another machine, or remotely",
        ),
        "scaler": Family(
            layer="resource",
            interface="pentad.resource.scaling.base:FleetScaler",
            baseline="fixed",
            chosen_by=("scaler", "simulate --scaler"),
            about="how many replicas of which model are up, as the load comes and goes",
        ),
        "eviction": Family(
            layer="resource",
            interface="pentad.resource.eviction.base:EvictionPolicy",
            baseline="recent-cost",
            chosen_by=("eviction",),
            about="which loaded models leave when another one needs their memory",
        ),
        "input_batching": Family(
            layer="resource",
            interface="pentad.resource.input_batching.base:InputBatcher",
            baseline="arrival",
            chosen_by=("engine.input_batching",),
            about="which inputs of encoders are computed together, by type and length",
        ),
    }
)
"""The families that people choose from; the other sections of the table are chosen by the code."""

OPEN = frozenset({"model_family"})
"""Sections that packages add to all the same: what is chosen in them is named by a model's files."""

_TABLE: dict[str, dict[str, str]] = {
    # resource layer
    "scheduler": {
        "classes": "pentad.resource.scheduling.classes:Classes",
        "clipper": "pentad.resource.scheduling.clipper:Clipper",
        "clockwork": "pentad.resource.scheduling.clockwork:Clockwork",
        "fastserve": "pentad.resource.scheduling.fastserve:FastServe",
        "fcfs": "pentad.resource.scheduling.fcfs:Fcfs",
        "sarathi": "pentad.resource.scheduling.sarathi:Sarathi",
        "workflow": "pentad.resource.scheduling.workflow:Workflow",
    },
    "kv_eviction": {
        "announced": "pentad.execution.kv.eviction:Announced",
        "least-recent": "pentad.resource.kv_eviction.least_recent:LeastRecent",
        "next-use": "pentad.resource.kv_eviction.next_use:NextUse",
    },
    "placement": {
        "auto": "pentad.resource.placement.auto:AutoPlacement",
        "exact": "pentad.resource.placement.exact:ExactPlacement",
        "single": "pentad.resource.placement.single:SingleDevice",
        "uniform": "pentad.resource.placement.uniform:UniformPipeline",
        "replicated": "pentad.resource.placement.replicated:Replicated",
        "data-parallel": "pentad.resource.placement.data_parallel:DataParallel",
        "energy-balance": "pentad.resource.placement.energy_balance:EnergyBalance",
        "tensor": "pentad.resource.placement.tensor:TensorParallel",
        "phases": "pentad.resource.placement.phases:SeparatePhases",
        "distserve": "pentad.resource.placement.distserve:DistServe",
        "splitwise": "pentad.resource.placement.splitwise:Splitwise",
        "phase-aware": "pentad.resource.placement.phase_aware:PhaseAware",
        "hetero-pool": "pentad.resource.placement.hetero_pool:HeteroPool",
        "helix": "pentad.resource.placement.helix:Helix",
        "hexgen": "pentad.resource.placement.hexgen:HexGen",
        "constrained": "pentad.resource.placement.constrained:Constrained",
        "grid": "pentad.resource.placement.grid:Grid",
        "edgeshard": "pentad.resource.placement.edgeshard:EdgeShard",
        "galaxy": "pentad.resource.placement.galaxy:Galaxy",
        "lingualinked": "pentad.resource.placement.lingualinked:LinguaLinked",
        "petals": "pentad.resource.placement.petals:Petals",
        "fastdecode": "pentad.resource.placement.fastdecode:FastDecode",
        "complementary": "pentad.resource.placement.complementary:Complementary",
        "loongserve": "pentad.resource.placement.loongserve:LoongServe",
    },
    "launcher": {
        "vllm": "pentad.resource.launching.vllm:Vllm",
        "deepspeed": "pentad.resource.launching.deepspeed:DeepSpeed",
        "colossal": "pentad.resource.launching.colossal:Colossal",
        "tensorrt-llm": "pentad.resource.launching.tensorrt_llm:TensorrtLlm",
    },
    "offload": {
        "local": "pentad.resource.offloading.local:Local",
        "fastest": "pentad.resource.offloading.fastest:Fastest",
        "flow": "pentad.resource.offloading.flow:Flow",
        "edge-cloud": "pentad.resource.offloading.edge_cloud:EdgeCloud",
        "drift-plus-penalty": "pentad.resource.offloading.drift_plus_penalty:DriftPlusPenalty",
        "double-dutch": "pentad.resource.offloading.double_dutch:DoubleDutch",
        "objective": "pentad.resource.offloading.objective:ForObjective",
        "realtime": "pentad.resource.offloading.realtime:Realtime",
        "deep-q": "pentad.resource.offloading.deep_q:DeepQ",
        "replay-groups": "pentad.resource.offloading.replay_groups:ReplayGroups",
        "active-inference": "pentad.resource.offloading.active_inference:ActiveInference",
        "test-time": "pentad.resource.offloading.at_test_time:AtTestTime",
        "cnc": "pentad.resource.offloading.cnc:Cnc",
        "semi-noma": "pentad.resource.offloading.semi_noma:SemiNoma",
        "energy-harvest": "pentad.resource.offloading.energy_harvest:EnergyHarvest",
        "vehicular-split": "pentad.resource.offloading.vehicular_split:VehicularSplit",
        "round-robin": "pentad.resource.offloading.round_robin:RoundRobin",
        "predicted": "pentad.resource.offloading.predicted:Predicted",
    },
    "scaler": {
        "fixed": "pentad.resource.scaling.fixed:FixedReplicas",
        "queue": "pentad.resource.scaling.queue:QueueScaler",
        "mark": "pentad.resource.scaling.mark:Mark",
        "elastic": "pentad.resource.scaling.elastic:Elastic",
        "shares": "pentad.resource.scaling.shares:Shares",
        "infaas": "pentad.resource.scaling.infaas:Infaas",
        "edgeadaptor": "pentad.resource.scaling.edgeadaptor:EdgeAdaptor",
        "jellybean": "pentad.resource.scaling.jellybean:JellyBean",
        "nexus": "pentad.resource.scaling.nexus:Nexus",
        "kairos": "pentad.resource.scaling.kairos:Kairos",
        "inferline": "pentad.resource.scaling.inferline:Inferline",
        "shepherd": "pentad.resource.scaling.shepherd:Shepherd",
        "spotserve": "pentad.resource.scaling.spotserve:Spotserve",
        "rl": "pentad.resource.scaling.learnt:Rl",
        "proactive": "pentad.resource.scaling.proactive:Proactive",
    },
    "eviction": {
        "recent-cost": "pentad.resource.eviction.recent_cost:RecentCost",
        "least-recent": "pentad.resource.eviction.least_recent:LeastRecent",
    },
    "input_batching": {
        "arrival": "pentad.resource.input_batching.arrival:Arrival",
        "bucketed": "pentad.resource.input_batching.bucketed:Bucketed",
    },
    # execution layer: how messages and bytes travel between processes
    "transport": {
        "in-process": "pentad.execution.transport.in_process:InProcess",
        "shared-memory": "pentad.execution.transport.shared_memory:SharedMemory",
        "tcp": "pentad.execution.transport.tcp:Tcp",
    },
    # execution layer: how numbers travel between the ranks of a model
    "codec": {
        "plain": "pentad.execution.codecs.plain:Plain",
        "int8": "pentad.execution.codecs.int8:Int8",
        "low-bit": "pentad.execution.codecs.low_bit:LowBit",
        "sparse": "pentad.execution.codecs.sparse:Sparse",
        "protected": "pentad.execution.codecs.protected:Protected",
    },
    # execution layer: who runs a step
    "runner": {
        "native": "pentad.execution.native.runner:NativeRunner",
        "torch": "pentad.execution.torch.runner:TorchRunner",
    },
    # execution layer: the ops that it computes with
    "kernel": {
        "torch": "pentad.execution.kernels.plain:Torch",
        "amx": "pentad.execution.kernels.native:Amx",
        "avx512": "pentad.execution.kernels.native:Avx512",
        "avx512vnni": "pentad.execution.kernels.native:Avx512Vnni",
        "avxvnni": "pentad.execution.kernels.native:AvxVnni",
        "avx2": "pentad.execution.kernels.native:Avx2",
        "neon": "pentad.execution.kernels.native:Neon",
        "portable": "pentad.execution.kernels.native:Portable",
    },
    # execution layer: what times the primitives of a runner
    "probe": {
        "native": "pentad.execution.native.probe:NativeProbe",
        "torch": "pentad.execution.torch.probe:TorchProbe",
    },
    "residency": {
        "mapped": "pentad.execution.residency.mapped:Mapped",
        "resident": "pentad.execution.residency.resident:Resident",
        "streamed": "pentad.execution.residency.streamed:Streamed",
    },
    "expert_cache": {
        "recent": "pentad.execution.expert_cache.recent:Recent",
        "arbitrary": "pentad.execution.expert_cache.arbitrary:Arbitrary",
        "popular": "pentad.execution.expert_cache.popular:Popular",
        "traced": "pentad.execution.expert_cache.traced:Traced",
        "chained": "pentad.execution.expert_cache.chained:Chained",
    },
    "encoder": {
        "native": "pentad.execution.native.encoder:NativeEncoder",
        "torch": "pentad.execution.torch.encoder:TorchEncoder",
    },
    "scorer": {
        "torch": "pentad.execution.torch.encoder:TorchScorer",
    },
    "image_encoder": {
        "torch": "pentad.execution.torch.images:TorchImageEncoder",
    },
    # model layer: architecture, as files name it, to its mapping
    "model_family": {
        "llama": "pentad.model.families.llama:FAMILY",
        "mistral": "pentad.model.families.mistral:FAMILY",
        "ministral": "pentad.model.families.mistral:FAMILY",
        "ministral3": "pentad.model.families.mistral:FAMILY",
        "qwen2": "pentad.model.families.qwen2:FAMILY",
        "qwen3": "pentad.model.families.qwen3:FAMILY",
        "qwen2_vl_text": "pentad.model.families.qwen2:FAMILY",
        "qwen2_5_vl_text": "pentad.model.families.qwen2:FAMILY",
        "qwen3_vl_text": "pentad.model.families.qwen3:FAMILY",
        "olmoe": "pentad.model.families.olmoe:FAMILY",
        "glm4_moe": "pentad.model.families.glm_moe:FAMILY",
        "glm4moe": "pentad.model.families.glm_moe:FAMILY",
        "granitemoe": "pentad.model.families.granite_moe:FAMILY",
        "ernie4_5_moe": "pentad.model.families.ernie_moe:FAMILY",
        "ernie4_5-moe": "pentad.model.families.ernie_moe:FAMILY",
        "mixtral": "pentad.model.families.mixtral:FAMILY",
        "llama4": "pentad.model.families.llama4:FAMILY",
        "llama4_text": "pentad.model.families.llama4:FAMILY",
        "phimoe": "pentad.model.families.phimoe:FAMILY",
        "minicpm3": "pentad.model.families.minicpm3:FAMILY",
        "gpt_oss": "pentad.model.families.gpt_oss:FAMILY",
        "gpt-oss": "pentad.model.families.gpt_oss:FAMILY",
        "qwen2_moe": "pentad.model.families.qwen_moe:QWEN2",
        "qwen2moe": "pentad.model.families.qwen_moe:QWEN2",
        "qwen3_moe": "pentad.model.families.qwen_moe:QWEN3",
        "qwen3moe": "pentad.model.families.qwen_moe:QWEN3",
        "deepseek2": "pentad.model.families.deepseek:FAMILY",
        "deepseek_v2": "pentad.model.families.deepseek:FAMILY",
        "deepseek_v3": "pentad.model.families.deepseek:FAMILY",
        "qwen3_next": "pentad.model.families.qwen3_next:NEXT",
        "qwen3_5_text": "pentad.model.families.qwen3_next:QWEN_3_5",
        "mamba2": "pentad.model.families.mamba:FAMILY",
        "lfm2": "pentad.model.families.lfm2:FAMILY",
        "granitemoehybrid": "pentad.model.families.granite_hybrid:FAMILY",
        "nemotron_h": "pentad.model.families.nemotron_h:FAMILY",
        "bert": "pentad.model.families.bert:FAMILY",
        "distilbert": "pentad.model.families.bert:DISTILBERT",
        "roberta": "pentad.model.families.bert:ROBERTA",
        "xlm-roberta": "pentad.model.families.bert:ROBERTA",
        "camembert": "pentad.model.families.bert:ROBERTA",
        "mpnet": "pentad.model.families.bert:MPNET",
        "modernbert": "pentad.model.families.modernbert:FAMILY",
        "modern-bert": "pentad.model.families.modernbert:FAMILY",
        "nomic_bert": "pentad.model.families.nomic_bert:FAMILY",
        "nomic-bert": "pentad.model.families.nomic_bert:FAMILY",
        "t5": "pentad.model.families.t5:FAMILY",
        "t5encoder": "pentad.model.families.t5:FAMILY",
        "mt5": "pentad.model.families.t5:FAMILY",
        "bart": "pentad.model.families.bart:FAMILY",
        "m2m_100": "pentad.model.families.bart:FAMILY",
        "marian": "pentad.model.families.bart:FAMILY",
        "mbart": "pentad.model.families.bart:FAMILY",
        "switch_transformers": "pentad.model.families.switch:FAMILY",
        "gemma": "pentad.model.families.gemma:FIRST",
        "gemma2": "pentad.model.families.gemma:SECOND",
        "gemma3": "pentad.model.families.gemma:THIRD",
        "gemma3_text": "pentad.model.families.gemma:THIRD",
        "gpt2": "pentad.model.families.gpt2:FAMILY",
        "gpt_neox": "pentad.model.families.gpt_neox:FAMILY",
        "gptneox": "pentad.model.families.gpt_neox:FAMILY",
        "phi3": "pentad.model.families.phi3:FAMILY",
        "baichuan": "pentad.model.families.baichuan:FAMILY",
        "bamba": "pentad.model.families.bamba:FAMILY",
        "bloom": "pentad.model.families.bloom:FAMILY",
        "cohere": "pentad.model.families.cohere:FIRST",
        "command-r": "pentad.model.families.cohere:FIRST",
        "cohere2": "pentad.model.families.cohere:SECOND",
        "ernie4_5": "pentad.model.families.ernie4_5:FAMILY",
        "falcon": "pentad.model.families.falcon:FAMILY",
        "glm": "pentad.model.families.glm:FAMILY",
        "glm4": "pentad.model.families.glm:FAMILY",
        "chatglm": "pentad.model.families.glm:FAMILY",
        "gptj": "pentad.model.families.gptj:FAMILY",
        "granite": "pentad.model.families.granite:FAMILY",
        "minicpm": "pentad.model.families.granite:MINICPM",
        "hunyuan_v1_dense": "pentad.model.families.hunyuan:FAMILY",
        "hunyuan_v1_moe": "pentad.model.families.hunyuan:MOE",
        "hunyuan-dense": "pentad.model.families.hunyuan:FAMILY",
        "internlm": "pentad.model.families.llama:FAMILY",
        "internlm2": "pentad.model.families.internlm2:FAMILY",
        "internlm3": "pentad.model.families.llama:FAMILY",
        "skywork": "pentad.model.families.llama:FAMILY",
        "mpt": "pentad.model.families.mpt:FAMILY",
        "nemotron": "pentad.model.families.nemotron:FAMILY",
        "olmo": "pentad.model.families.olmo:FIRST",
        "olmo2": "pentad.model.families.olmo:FAMILY",
        "olmo3": "pentad.model.families.olmo:FAMILY",
        "opt": "pentad.model.families.opt:FAMILY",
        "phi": "pentad.model.families.phi:FAMILY",
        "phi2": "pentad.model.families.phi:FAMILY",
        "qwen": "pentad.model.families.qwen:FAMILY",
        "idefics3": "pentad.model.families.idefics3:FAMILY",
        "smolvlm": "pentad.model.families.idefics3:FAMILY",
        "smollm3": "pentad.model.families.smollm3:FAMILY",
        "stablelm": "pentad.model.families.stablelm:FAMILY",
        "starcoder2": "pentad.model.families.starcoder2:FAMILY",
        "gpt_bigcode": "pentad.model.families.gpt_bigcode:FAMILY",
        "starcoder": "pentad.model.families.gpt_bigcode:FAMILY",
    },
    "model_source": {
        "pypi": "pentad.model.sources.pypi:PypiSource",
        "hf": "pentad.model.sources.hub:HubSource",
        "path": "pentad.model.sources.local:LocalSource",
    },
    "backend": {
        "engine": "pentad.model.backends.engine:EngineBackend",
        "openai": "pentad.model.backends.openai:OpenAIBackend",
        "llamacpp": "pentad.model.backends.llamacpp:LlamaCppBackend",
        "openvino": "pentad.model.backends.openvino:OpenVinoBackend",
    },
    # how remote servers are spoken to; which one an engine takes: model/backends/engines.py
    "wire": {
        "openai": "pentad.model.backends.wires.openai:OpenAIWire",
        "triton": "pentad.model.backends.wires.triton:TritonWire",
        "tfserving": "pentad.model.backends.wires.tfserving:TfServingWire",
        "mii": "pentad.model.backends.wires.mii:MiiWire",
    },
    "export": {
        "mlc": "pentad.model.exports.mlc:read_mlc",
        "mnn": "pentad.model.exports.mnn:read_mnn",
        "mllm": "pentad.model.exports.mllm:read_mllm",
    },
    # execution layer: what carries a calibration text through a model, and what trains one
    "walk": {
        "torch": "pentad.execution.torch.taps:LayerWalk",
    },
    "value_learner": {
        "torch": "pentad.execution.torch.value_learning:QLearner",
    },
    "trainer": {
        "torch": "pentad.execution.torch.training:train",
    },
    "recipe": {
        "fine-tune": "pentad.model.training.fine_tune:FineTune",
        "distil": "pentad.model.training.distil:Distil",
        "low-rank": "pentad.model.training.low_rank:LowRank",
        "distillspec": "pentad.model.training.distill_spec:DistillSpec",
    },
    "transform": {
        "round-to-nearest": "pentad.model.transforms.round_to_nearest:RoundToNearest",
        "importance": "pentad.model.transforms.importance:Importance",
        "gptq": "pentad.model.transforms.gptq:GPTQ",
        "awq": "pentad.model.transforms.awq:AWQ",
        "omniquant": "pentad.model.transforms.omniquant:OmniQuant",
        "rotate": "pentad.model.transforms.rotate:Rotate",
        "ostquant": "pentad.model.transforms.ostquant:OSTQuant",
        "mixed": "pentad.model.transforms.mixed:Mixed",
        "owq": "pentad.model.transforms.owq:OWQ",
        "mofq": "pentad.model.transforms.mofq:MoFQ",
        "smoothquant": "pentad.model.transforms.smoothquant:SmoothQuant",
        "os-plus": "pentad.model.transforms.os_plus:OutlierSuppressionPlus",
        "rptq": "pentad.model.transforms.rptq:RPTQ",
        "fptq": "pentad.model.transforms.fptq:FPTQ",
        "magnitude": "pentad.model.transforms.magnitude:Magnitude",
        "wanda": "pentad.model.transforms.wanda:Wanda",
        "sparsegpt": "pentad.model.transforms.sparsegpt:SparseGPT",
        "gblm": "pentad.model.transforms.gblm:GBLM",
        "mixed-sparsity": "pentad.model.transforms.mixed_sparsity:MixedSparsity",
        "flap": "pentad.model.transforms.flap:FLAP",
        "llm-pruner": "pentad.model.transforms.llm_pruner:LLMPruner",
        "ziplm": "pentad.model.transforms.ziplm:ZipLM",
        "drop-layers": "pentad.model.transforms.drop_layers:DropLayers",
        "kv-pooling": "pentad.model.transforms.kv_pooling:KVPooling",
    },
    "metric": {
        "perplexity": "pentad.model.certification.perplexity:Perplexity",
        "perplexity-ratio": "pentad.model.certification.perplexity:PerplexityRatio",
        "kl": "pentad.model.certification.divergence:Divergence",
        "top1": "pentad.model.certification.divergence:Agreement",
        "recall": "pentad.model.certification.recall:Recall",
        "gsm8k": "pentad.model.certification.tasks:Gsm8kScore",
        "bfcl": "pentad.model.certification.tasks:BfclScore",
        "tool-calls": "pentad.model.certification.tasks:ToolCallValidity",
        "size": "pentad.model.certification.size:Size",
        "prefill-speed": "pentad.model.certification.speed:PrefillSpeed",
        "decode-speed": "pentad.model.certification.speed:DecodeSpeed",
        "joules": "pentad.model.certification.speed:Energy",
    },
    "speculator": {
        "ngram": "pentad.model.speculation.ngram:NGram",
        "forced": "pentad.model.speculation.forced:Forced",
        "draft": "pentad.model.speculation.draft:DraftModel",
        "specinfer": "pentad.model.speculation.specinfer:SpecInfer",
        "sequoia": "pentad.model.speculation.sequoia:Sequoia",
        "llmcad": "pentad.model.speculation.llmcad:LlmCad",
    },
    "attention_filter": {
        "unfiltered": "pentad.model.attention_filters.unfiltered:Unfiltered",
        "candidate-search": "pentad.model.attention_filters.candidate_search:CandidateSearch",
        "cascade": "pentad.model.attention_filters.cascade:Cascade",
        "key-channels": "pentad.model.attention_filters.key_channels:KeyChannels",
        "low-bit-mask": "pentad.model.attention_filters.low_bit_mask:LowBitMask",
        "lsh-sampling": "pentad.model.attention_filters.lsh_sampling:LshSampling",
        "rounds": "pentad.model.attention_filters.rounds:Rounds",
        "sign-hash": "pentad.model.attention_filters.sign_hash:SignHash",
        "weight-skip": "pentad.model.attention_filters.weight_skip:WeightSkip",
    },
    "kv_policy": {
        "keep-all": "pentad.model.kv_policies.keep_all:KeepAll",
        "sinks": "pentad.model.kv_policies.sinks:Sinks",
        "accumulated-attention": "pentad.model.kv_policies.accumulated_attention:AccumulatedAttention",
        "head-profile": "pentad.model.kv_policies.head_profile:HeadProfile",
        "retrieval-heads": "pentad.model.kv_policies.retrieval_heads:RetrievalHeads",
    },
    "reducer": {
        "none": "pentad.model.reduction.nothing:NoReduction",
        "extractive": "pentad.model.reduction.extractive:Extractive",
        "selective": "pentad.model.reduction.selective:Selective",
        "coarse-to-fine": "pentad.model.reduction.coarse_to_fine:CoarseToFine",
    },
    "router": {
        "fixed": "pentad.model.routing.fixed:Fixed",
        "elastic": "pentad.model.routing.elastic:Elastic",
        "cheapest": "pentad.model.routing.cheapest:Cheapest",
        "objective": "pentad.model.routing.objective:ByObjective",
        "offload": "pentad.model.routing.offloaded:ByOffloading",
        "predicted": "pentad.model.routing.predicted:Predicted",
        "infaas": "pentad.model.routing.infaas:Infaas",
        "agent-centric": "pentad.model.routing.agent_centric:AgentCentric",
        "tabi": "pentad.model.routing.tabi:Tabi",
    },
    # model layer: who learns from recorded outcomes how probable a right answer is
    "success": {
        "knn": "pentad.model.routing.neighbours:Neighbours",
        "mixed": "pentad.model.routing.mixed:Mixed",
    },
    "tool_format": {
        "kimi_k2": "pentad.model.toolcalls.kimi_k2:KimiK2",
        "deepseek_v3": "pentad.model.toolcalls.deepseek_v3:DeepSeekV3",
        "deepseek_v31": "pentad.model.toolcalls.deepseek_v31:DeepSeekV31",
        "harmony": "pentad.model.toolcalls.harmony:Harmony",
        "command_r": "pentad.model.toolcalls.command_r:CommandR",
        "granite": "pentad.model.toolcalls.granite:Granite",
        "phi4": "pentad.model.toolcalls.phi4:Phi4",
        "gemma": "pentad.model.toolcalls.gemma:Gemma",
        "function_gemma": "pentad.model.toolcalls.function_gemma:FunctionGemma",
        "lfm2": "pentad.model.toolcalls.lfm2:Lfm2",
        "llama4_pythonic": "pentad.model.toolcalls.llama4_pythonic:Llama4Pythonic",
        "pythonic": "pentad.model.toolcalls.pythonic:Pythonic",
        "tool_code": "pentad.model.toolcalls.tool_code:ToolCode",
        "qwen3_coder": "pentad.model.toolcalls.qwen3_coder:Qwen3Coder",
        "seed_oss": "pentad.model.toolcalls.seed_oss:SeedOss",
        "glm45": "pentad.model.toolcalls.glm45:Glm45",
        "glm47": "pentad.model.toolcalls.glm47:Glm47",
        "mistral_ids": "pentad.model.toolcalls.mistral_ids:MistralIds",
        "mistral_args": "pentad.model.toolcalls.mistral_args:MistralArgs",
        "mistral": "pentad.model.toolcalls.mistral:Mistral",
        "hermes": "pentad.model.toolcalls.hermes:Hermes",
        "glm4": "pentad.model.toolcalls.glm4:Glm4",
        "llama3_json": "pentad.model.toolcalls.llama3_json:Llama3Json",
    },
    "reasoning_format": {
        "harmony": "pentad.model.reasoning.harmony:HARMONY",
        "mistral": "pentad.model.reasoning.blocks:MISTRAL",
        "seed": "pentad.model.reasoning.blocks:SEED",
        "command_r": "pentad.model.reasoning.blocks:COMMAND_R",
        "gemma": "pentad.model.reasoning.blocks:GEMMA",
        "think": "pentad.model.reasoning.blocks:THINK",
        "granite": "pentad.model.reasoning.blocks:GRANITE",
    },
    # agent layer
    "planner": {
        "react": "pentad.agent.planning.react:React",
        "graph": "pentad.agent.planning.graph:PlanGraph",
        "parallel": "pentad.agent.planning.parallel:Parallel",
        "hierarchical": "pentad.agent.planning.hierarchical:Hierarchical",
        "dynamic": "pentad.agent.planning.dynamic:Dynamic",
        "reflect": "pentad.agent.planning.reflect:Reflect",
        "cot": "pentad.agent.planning.cot:ChainOfThought",
        "flexible": "pentad.agent.planning.flexible:Flexible",
        "elastic": "pentad.agent.planning.elastic:Elastic",
        "recon": "pentad.agent.planning.recon:Recon",
        "pddl": "pentad.agent.planning.pddl:Pddl",
        "deps": "pentad.agent.planning.deps:Deps",
        "mcts": "pentad.agent.planning.mcts:Mcts",
        "mindagent": "pentad.agent.planning.mindagent:MindAgent",
        "adaptive": "pentad.agent.planning.adaptive:Adaptive",
        "sequential": "pentad.agent.planning.sequential:Sequential",
        "reverse-chain": "pentad.agent.planning.reverse_chain:ReverseChain",
    },
    "tool_policy": {
        "all": "pentad.agent.tools.policy.everything:All",
        "retrieve": "pentad.agent.tools.policy.retrieve:Retrieve",
        "learned": "pentad.agent.tools.policy.learned:Learned",
    },
    "tool_wrapper": {
        "plain": "pentad.agent.tools.wrapping.plain:Plain",
        "fresh": "pentad.agent.tools.wrapping.fresh:Fresh",
        "student": "pentad.agent.tools.wrapping.student:Student",
        "parcel": "pentad.agent.tools.wrapping.parcel:Parcel",
    },
    "sandbox": {
        "bubblewrap": "pentad.agent.tools.sandbox.bubblewrap:Bubblewrap",
        "container": "pentad.agent.tools.sandbox.container:Container",
        "monty": "pentad.agent.tools.sandbox.monty:Monty",
    },
    "environment": {
        "local": "pentad.agent.environment.local:Local",
        "recorded": "pentad.agent.environment.recorded:Recorded",
        "offered": "pentad.agent.environment.offered:Offered",
        "household": "pentad.agent.environment.household:Household",
        "system": "pentad.agent.environment.system:System",
        "database": "pentad.agent.environment.database:Database",
        "crafting": "pentad.agent.environment.crafting:Crafting",
        "shop": "pentad.agent.environment.shop:Shop",
        "kitchen": "pentad.agent.environment.kitchen:Kitchen",
        "computed": "pentad.agent.environment.computed:Computed",
    },
    "suite": {
        "bfcl-simple": "pentad.agent.evaluation.suites.bfcl_simple:BfclSimple",
        "bfcl-validity": "pentad.agent.evaluation.suites.bfcl_validity:BfclValidity",
        "bfcl-multiple": "pentad.agent.evaluation.suites.bfcl_multiple:BfclMultiple",
        "gsm8k": "pentad.agent.evaluation.suites.gsm8k:Gsm8k",
        "household": "pentad.agent.evaluation.suites.household:HouseholdSuite",
        "system": "pentad.agent.evaluation.suites.system:SystemSuite",
        "database": "pentad.agent.evaluation.suites.database:DatabaseSuite",
        "crafting": "pentad.agent.evaluation.suites.crafting:CraftingSuite",
        "shop": "pentad.agent.evaluation.suites.shop:ShopSuite",
        "kitchen": "pentad.agent.evaluation.suites.kitchen:KitchenSuite",
        "nested-calls": "pentad.agent.evaluation.suites.nested_calls:NestedCalls",
        "nestful": "pentad.agent.evaluation.suites.nestful:Nestful",
        "mmlu-pro": "pentad.agent.evaluation.suites.mmlu_pro:MmluPro",
        "gpqa": "pentad.agent.evaluation.suites.gpqa:Gpqa",
        "math-500": "pentad.agent.evaluation.suites.math_500:Math500",
        "aime": "pentad.agent.evaluation.suites.aime:Aime",
        "programs": "pentad.agent.evaluation.suites.programs:Programs",
    },
    "context": {
        "compact": "pentad.agent.context_builders.compact:Compact",
        "window": "pentad.agent.context_builders.window:NewestTurns",
        "examples": "pentad.agent.context_builders.examples:Examples",
        "demonstrations": "pentad.agent.context_builders.demonstrations:Demonstrations",
        "tiered": "pentad.agent.context_builders.tiered:Tiered",
        "elastic": "pentad.agent.context_builders.elastic:Elastic",
    },
    "coordinator": {
        "single": "pentad.agent.coordination.single:Single",
        "supervisor": "pentad.agent.coordination.supervisor:Supervisor",
        "decentralized": "pentad.agent.coordination.decentralized:Decentralized",
        "debate": "pentad.agent.coordination.debate:Debate",
        "peer-verify": "pentad.agent.coordination.peer_verify:PeerVerify",
        "balance": "pentad.agent.coordination.balance:Balance",
        "elastic": "pentad.agent.coordination.elastic:Elastic",
        "dylan": "pentad.agent.coordination.dylan:Dylan",
        "agentverse": "pentad.agent.coordination.agentverse:AgentVerse",
        "babyagi": "pentad.agent.coordination.babyagi:BabyAgi",
        "agent-graph": "pentad.agent.coordination.agent_graph:AgentGraph",
        "gorilla": "pentad.agent.coordination.gorilla:Gorilla",
        "grounded": "pentad.agent.coordination.grounded:Grounded",
        "coela": "pentad.agent.coordination.coela:Coela",
        "how2comm": "pentad.agent.coordination.how2comm:How2Comm",
        "llm-co": "pentad.agent.coordination.llm_co:LlmCo",
        "masc": "pentad.agent.coordination.masc:Masc",
        "compatible": "pentad.agent.coordination.compatible:Compatible",
        "restate": "pentad.agent.coordination.restate:Restate",
    },
    "memory": {
        "store": "pentad.agent.memory.store:Store",
        "buffer": "pentad.agent.memory.buffer:Buffer",
        "levels": "pentad.agent.memory.levels:Levels",
        "rethink": "pentad.agent.memory.rethink:Rethink",
        "rememberer": "pentad.agent.memory.rememberer:Rememberer",
        "thoughts": "pentad.agent.memory.thoughts:Thoughts",
        "working-memory": "pentad.agent.memory.working_memory:WorkingMemory",
        "dialogue": "pentad.agent.memory.dialogue:Dialogue",
    },
    "tool": {
        "calculator": "pentad.agent.tools.builtin.calculator:build",
        "calendar": "pentad.agent.tools.builtin.calendar:build",
        "question_answering": "pentad.agent.tools.builtin.question_answering:build",
        "search": "pentad.agent.tools.builtin.search:build",
        "speculative_rag": "pentad.agent.tools.builtin.speculative_rag:build",
        "translation": "pentad.agent.tools.builtin.translation:build",
        "remember": "pentad.agent.tools.builtin.memory:build_remember",
        "recall": "pentad.agent.tools.builtin.memory:build_recall",
        "earlier": "pentad.agent.tools.builtin.earlier:build",
        "python": "pentad.agent.tools.builtin.code:build_python",
        "shell": "pentad.agent.tools.builtin.code:build_shell",
        "a2a": "pentad.agent.tools.builtin.a2a:build",
        "skill": "pentad.agent.tools.builtin.skill:build",
        "database": "pentad.agent.tools.builtin.database:build",
        "remote": "pentad.agent.tools.builtin.remote:build",
        "classify": "pentad.agent.tools.builtin.classify:build",
        "current": "pentad.agent.tools.builtin.current:build",
    },
}

TABLE: Mapping[str, Mapping[str, str]] = MappingProxyType(_TABLE)


def known(family: str) -> tuple[str, ...]:
    """The registered names of a family, in table order, then those of other packages.

    Raises UnknownName for no such family.
    """
    if family not in _TABLE:
        raise UnknownName(f"unknown family {family!r}", hint=near(family, _TABLE), param="family")
    added = _added().get(family, {}) if family in FAMILIES or family in OPEN else {}
    return (*_TABLE[family], *(name for name in added if name not in _TABLE[family]))


def load(family: str, name: str) -> Any:
    """The class, function or module registered as `name`; its module is imported now.

    A name of the table is never replaced by another package's.

    Raises:
        UnknownName: no such family or name; the hint suggests the nearest, or lists all.
    """
    if not registered(family, name):
        names = known(family)
        if name not in names:
            raise UnknownName(f"unknown {family} {name!r}", hint=near(name, names), param=family)
        return _added()[family][name].load()
    path, _, attribute = _TABLE[family][name].partition(":")
    module = importlib.import_module(path)
    return getattr(module, attribute) if attribute else module


def registered(family: str, name: str) -> bool:
    """Whether the table itself has the name; looks at no other package."""
    return name in _TABLE.get(family, {})


def origin(family: str, name: str) -> str:
    """`module:Class` of a registered name, whoever registered it."""
    own = _TABLE[family].get(name)
    return own if own is not None else str(_added()[family][name].value)


def near(name: str, names: Iterable[str]) -> str:
    """A hint for a name that none of `names` is: the nearest of them and all that there are."""
    names = tuple(names)
    alike = difflib.get_close_matches(name, names, n=1)
    listed = f"known: {', '.join(names) or 'none'}"
    return f"did you mean {alike[0]!r}? {listed}" if alike else listed


@functools.cache
def _added() -> Mapping[str, Mapping[str, importlib.metadata.EntryPoint]]:
    """What other installed packages add, by family and name; read once, and only when it is asked for."""
    found: dict[str, dict[str, importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        family, _, name = point.name.partition(".")
        if name:
            found.setdefault(family, {})[name] = point
    return found
