"""Makes the view of each pane, and remembers what has to stay in place: widths, unfolded groups."""

from dataclasses import dataclass, field

from pbus.names import group_of
from pbus_cli.views.board.arrangement import Pane
from pbus_cli.views.board.board_snapshot import Snapshot
from pbus_cli.views.board.message_panes import TrafficPane, log_pane, widest_name
from pbus_cli.views.board.pane_view import PaneView, SteadyColumns
from pbus_cli.views.board.table_panes import dead_pane, edge_pane, job_pane, steady_edge_columns
from pbus_cli.views.board.worker_pane import (
    steady_worker_columns,
    worker_items,
    worker_pane,
)


@dataclass
class PaneMakers:
    """The views of one display.

    Attributes:
        is_folding: A line stands for messages that pass often.
    """

    is_folding: bool = True
    _unfolded: frozenset[str] = frozenset()
    _names: int = 0
    _traffic: TrafficPane = field(default_factory=TrafficPane)
    _workers: SteadyColumns = field(default_factory=steady_worker_columns)
    _edges: SteadyColumns = field(default_factory=steady_edge_columns)
    _jobs: SteadyColumns = field(default_factory=SteadyColumns)
    _dead: SteadyColumns = field(default_factory=SteadyColumns)

    def make(self, pane: Pane, snapshot: Snapshot, width: int) -> PaneView:
        """The view of a pane."""
        if pane == "workers":
            items = worker_items(snapshot.rows, self._unfolded)
            return worker_pane(items, snapshot.queues, self._workers, width)
        if pane == "traffic":
            return self._traffic.view(snapshot, width, is_folding=self.is_folding)
        if pane == "logs":
            self._names = widest_name(snapshot.logs, self._names)
            return log_pane(snapshot, self._names, width)
        if pane == "edges":
            return edge_pane(snapshot.edges, snapshot.job_stats, self._edges, width)
        if pane == "jobs":
            return job_pane(snapshot.jobs, self._jobs, width)
        dead = () if snapshot.queues is None and snapshot.dead is None else snapshot.dead
        return dead_pane(dead, self._dead, width)

    def toggle(self, group: str) -> None:
        """Unfold a group of replicas, or fold it again."""
        self._unfolded ^= {group_of(group) or group}

    def count_rows(self, snapshot: Snapshot) -> int:
        """The lines of the pane of workers."""
        return len(worker_items(snapshot.rows, self._unfolded))
