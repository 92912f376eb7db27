"""The weekly report: facts about a loop and a period, as data, as charts, as a page that runs nothing, and in MLflow.

pipelines.reporting.making.weekly(bench, loop_id, period)      the whole of it
"""
