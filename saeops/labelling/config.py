"""How latents get their labels, and how the labels are tested."""

from typing import Literal

from pydantic import Field

from saeops.config import Frozen


class PatternLabeller(Frozen):
    """The best n-gram-with-wildcards rule (after Neuron-to-Graph, arXiv 2305.19911)."""

    max_length: int = Field(default=4, ge=1, le=8)
    """Longest rule, in tokens, the firing one included."""
    max_alternatives: int = Field(default=8, ge=1)
    """Most tokens that one slot of a rule may list."""
    snippets_factor: int = Field(default=10, ge=1)
    """Times as many test snippets as an LLM gets: matching a rule costs nothing."""


class LlmLabeller(Frozen):
    """A language model that reads contexts and says what they share."""

    backend: Literal["in_process", "openai"] = "in_process"
    """`in_process` runs a transformers model here; `openai` speaks to any OpenAI-compatible endpoint."""
    model: str = "same"
    """Model reference for `in_process` (`same`: the model being read), or the endpoint's model name."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The endpoint for `openai`; its key comes from SAEOPS_LLM_API_KEY."""
    timeout_s: float = Field(default=60, gt=0)
    """Longest wait for one answer."""
    max_retries: int = Field(default=3, ge=0)
    """Tries after the first, on time-outs, 429 and 5xx."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest label, in tokens."""
    null_latents: int = Field(default=8, ge=0)
    """Latents on which it also judges another latent's label: the null."""


class LabelConfig(Frozen):
    """Labels and their scores."""

    latents: int = Field(default=400, ge=1)
    """Latents to label, drawn at random from the living ones (coverage is reported)."""
    llm_latents: int = Field(default=40, ge=0)
    """Of those, how many the LLM labels too; 0 needs no LLM."""
    explain_tokens: int = Field(default=200_000, ge=1)
    """Tokens of the explain split that are read; a rule is learned on all of them."""
    explain_contexts: int = Field(default=10, ge=1)
    """Contexts a labeller sees, over the activation quantiles."""
    positives: int = Field(default=20, ge=1)
    """Firing snippets a label is tested on, from documents that explained nothing."""
    negatives: int = Field(default=20, ge=1)
    """Random silent snippets."""
    hard_negatives: int = Field(default=10, ge=0)
    """Silent snippets that look alike: they hold the token the latent fires on most."""
    min_positives: int = Field(default=5, ge=1)
    """Fewer firing snippets than this leave a label unscored, with confidence 0."""
    snippet_tokens: int = Field(default=12, ge=2)
    """Tokens before the judged one in a snippet (and a few after)."""
    snippets_per_prompt: int = Field(default=5, ge=1)
    """Snippets an LLM judges in one prompt."""
    pattern: PatternLabeller = PatternLabeller()
    """The pattern labeller."""
    llm: LlmLabeller = LlmLabeller()
    """The LLM labeller."""
