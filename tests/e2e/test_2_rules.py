"""What the rules ask of others' programs is what these export: a name that is wrong makes an alert that never fires."""

from __future__ import annotations

from tests import rules
from tests.commands import REPOSITORY
from tests.lab_under_test import LabUnderTest
from tests.machines import wait


def test_every_metric_that_the_rules_select_is_exported(lab: LabUnderTest) -> None:
    documented = rules.documented_metrics((REPOSITORY / "docs/metrics.md").read_text())
    wanted = rules.exported_metrics(rules.RuleFolder(REPOSITORY / "files/rules").rules, documented)
    missing: list[str] = []

    def complete() -> bool:
        names = {
            job: set(lab.prometheus("label/__name__/values", **({"match[]": f'{{job="{job}"}}'} if job else {})))
            for _, job in wanted
        }
        missing[:] = rules.missing_metrics(wanted, names)
        return not missing

    try:
        wait(complete, "every metric of the rules", 120)
    except AssertionError as error:
        error.add_note(f"missing: {', '.join(missing)}")
        raise
