import importlib.util
import itertools

from attrs import frozen

_n = itertools.count()


@frozen
class IsolatedModule:
    module: object

    def unload(self):
        pass


def load_isolated(file, *, folder, name, shared=None):
    spec = importlib.util.spec_from_file_location(f"gw_{next(_n)}", file)
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return IsolatedModule(m)
