"""The doctor: what is wrong with a network's initialization, and weights that suit what follows a layer."""

from course_utils.doctor.diagnosis import Diagnosis, diagnose
from course_utils.doctor.faults import FAULTS
from course_utils.doctor.initialize import initialize_

__all__ = ["FAULTS", "Diagnosis", "diagnose", "initialize_"]
