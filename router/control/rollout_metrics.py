"""How far rollouts are, for the metrics page; and whether anybody is driving them.

A scope's phase is one gauge of value 1 under a label, as states are written; verdicts
likewise. `router_controller_stalled` is what says that growth has stopped because no
tick came, not because a gate held it.
"""

from router.control.publication import Publication
from router.control.tick import Ticker
from router.telemetry.counted import Counted

SCOPE = ("rollout", "scope", "model")


def rollout_metrics(publication: Publication, ticker: Ticker) -> tuple[Counted, ...]:
    """Phase, step, shares and verdicts of every scope; the controller's health."""
    views = ticker.views()
    named = [((v.spec.rollout, v.spec.scope, v.spec.model), v) for v in views]
    is_stalled = float(publication.current is not None and ticker.is_stalled())
    return (
        Counted(
            "router_rollout_phase", "1 for the phase a rollout is in.",
            (*SCOPE, "phase"),
            tuple(((*name, str(view.state.phase)), 1.0) for name, view in named),
            is_gauge=True,
        ),
        Counted(
            "router_rollout_step", "Steps of a rollout that are done.", SCOPE,
            tuple((name, float(view.state.step)) for name, view in named),
            is_gauge=True,
        ),
        Counted(
            "router_rollout_share_ratio", "Share that a candidate should have.",
            (*SCOPE, "version"),
            tuple(
                ((*name, str(version)), share / 10_000)
                for name, view in named
                for version, share in sorted(view.state.weights_bp.items())
            ),
            is_gauge=True,
        ),
        Counted(
            "router_rollout_verdict", "1 for what a criterion comes to at present.",
            (*SCOPE, "criterion", "version", "slice", "verdict"),
            tuple(
                (
                    (*name, one.name, str(one.version), one.within,
                     one.verdict.verdict),
                    1.0,
                )
                for name, view in named
                for one in view.judged
            ),
            is_gauge=True,
        ),
        Counted("router_controller_ticks", "Rounds of the controller.", (),
                (((), float(ticker.ticks)),)),
        Counted("router_controller_failures", "Rounds that ended in an error.", (),
                (((), float(ticker.failures)),)),
        Counted("router_controller_stalled", "1 when no round came lately.", (),
                (((), is_stalled),), is_gauge=True),
        Counted("router_controller_unstored_records",
                "Records that took effect and are not stored yet.", (),
                (((), float(publication.waiting)),), is_gauge=True),
    )  # fmt: skip
