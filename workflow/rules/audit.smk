# What the paper and the authors' released code do differently, measured: at the paper's resolution and number of
# timesteps whatever the config says, from formulas alone. docs/audit.md explains the results.


rule audit_differences:
    output:
        csv=report("<results>/audit/differences.csv", caption="../report/audit_differences.rst", category="Audit"),
        markdown="<results>/audit/differences.md",
        measurements="<results>/audit/measurements.csv",
    log:
        "<logs>/audit/differences.log",
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


rule audit_operator:
    output:
        png=report(
            "<results>/audit/operator.png",
            caption="../report/audit_operator.rst",
            category="Audit",
            labels={"figure": "operator"},
        ),
        pdf="<results>/audit/operator.pdf",
    log:
        "<logs>/audit/operator.log",
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


rule audit_gaussian:
    output:
        csv="<results>/audit/gaussian.csv",
        summary=report("<results>/audit/gaussian_summary.csv", caption="../report/audit_gaussian.rst", category="Audit"),
        png=report(
            "<results>/audit/gaussian.png",
            caption="../report/audit_gaussian.rst",
            category="Audit",
            labels={"figure": "gaussian"},
        ),
        pdf="<results>/audit/gaussian.pdf",
    log:
        "<logs>/audit/gaussian.log",
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
