"""Using a finished run: its backbone as a function from images to features, tables of features, files for others."""

from dinov2_noise.export.embedding import EmbedRequest, embed
from dinov2_noise.export.features import Features, Tokens, load
from dinov2_noise.export.preprocessing import Preprocessing
from dinov2_noise.export.run import ExportRequest, export

__all__ = ["EmbedRequest", "ExportRequest", "Features", "Preprocessing", "Tokens", "embed", "export", "load"]
