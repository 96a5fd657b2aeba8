"""Chat templates: from a conversation to the prompt text of one model."""

from pentad.model.template.chat import ChatTemplate, Segment, default_template
from pentad.model.template.meter import TemplateLimits

__all__ = ["ChatTemplate", "Segment", "TemplateLimits", "default_template"]
