"""What is in a set of images, before a long job is started on it."""

from dinov2_noise.check.command import check_command
from dinov2_noise.check.lines import report_lines
from dinov2_noise.check.record import record
from dinov2_noise.check.run import Findings, check, write_lists

__all__ = ["Findings", "check", "check_command", "record", "report_lines", "write_lists"]
