"""Loading of worker classes."""

import importlib
from typing import Any

from pbus.errors import PbusError, ProgramStartError, WorkerLoadError
from pbus.process.system.launch_plan import WorkerLaunchSpec
from pbus.workers.base_worker import BaseWorker


def load_worker(spec: WorkerLaunchSpec, name: str) -> BaseWorker:
    """Import the class and construct the worker.

    Raises:
        WorkerLoadError: There is no such class, it is no worker, or its own code failed.
        ProgramStartError: The worker stands for a program that is not there.
    """
    kind = load_class(spec.worker)
    try:
        worker = kind(name, **spec.args)
    except ProgramStartError:
        raise
    except Exception as error:
        arguments = ", ".join(spec.args) or "none"
        problem = f"{kind.__name__}({name!r}, …) raised {_describe(error)} (args: {arguments})"
        raise WorkerLoadError(spec.worker, problem, is_final=False) from error
    if not spec.active:
        worker.restore_activation(active=False, args=None)
    return worker


def load_class(reference: str) -> type[BaseWorker]:
    """Import the class that ``module:Class`` names.

    Raises:
        WorkerLoadError: There is none, or it is no worker.
    """
    module_name, _, class_name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        problem = f"importing {module_name} raised {_describe(error)}"
        is_final = isinstance(error, ImportError | SyntaxError | PbusError)  # no class as it is
        raise WorkerLoadError(reference, problem, is_final=is_final) from error
    place = getattr(found, "__file__", None) or module_name
    try:
        for part in class_name.split("."):
            found = getattr(found, part, None)
    except Exception as error:  # a module's own __getattr__
        problem = f"{place}: getting {class_name} raised {_describe(error)}"
        raise WorkerLoadError(reference, problem) from error
    if found is None:
        raise WorkerLoadError(reference, f"{place} has no {class_name}")
    if not (isinstance(found, type) and issubclass(found, BaseWorker)):
        raise WorkerLoadError(reference, f"{class_name} in {place} is no subclass of BaseWorker")
    return found


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
