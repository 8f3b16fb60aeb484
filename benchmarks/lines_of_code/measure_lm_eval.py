"""Measure the perplexity of a network on a text of one's own: with lm-eval."""

import lm_eval

task = {
    "task": "own_text",
    "dataset_path": "text",
    "dataset_kwargs": {"data_files": {"test": "text.txt"}, "sample_by": "document"},
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "byte_perplexity"}, {"metric": "word_perplexity"}],
}
results = lm_eval.simple_evaluate(model="hf", model_args={"pretrained": "path/to/model"}, tasks=[task], device="cpu")
print(results["results"]["own_text"])
