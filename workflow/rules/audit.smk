# What the paper and the authors' released code do differently, measured: at the paper's resolution and number of
# timesteps whatever the config says, from formulas alone. docs/audit.md explains the results.


rule audit:
    output:
        differences=report(
            "<results>/audit/differences.csv", caption="../report/audit_differences.rst", category="Audit"
        ),
        differences_markdown="<results>/audit/differences.md",
        measurements="<results>/audit/measurements.csv",
        operator_png=report(
            "<results>/audit/operator.png",
            caption="../report/audit_operator.rst",
            category="Audit",
            labels={"figure": "operator"},
        ),
        operator_pdf="<results>/audit/operator.pdf",
        gaussian="<results>/audit/gaussian.csv",
        gaussian_summary=report(
            "<results>/audit/gaussian_summary.csv", caption="../report/audit_gaussian.rst", category="Audit"
        ),
        gaussian_png=report(
            "<results>/audit/gaussian.png",
            caption="../report/audit_gaussian.rst",
            category="Audit",
            labels={"figure": "gaussian"},
        ),
        gaussian_pdf="<results>/audit/gaussian.pdf",
    log:
        "<logs>/audit.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} audit --output {output:q} > {log:q} 2>&1"
