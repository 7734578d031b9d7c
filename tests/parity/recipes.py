"""mergekit files that both tools carry out.  Keys say what is special about each; dtypes are added by the tests."""

from __future__ import annotations

EXPERTS = """
base_model: ./base
models:
  - model: ./expert-1
    parameters: {weight: 0.7, density: 0.6}
  - model: ./expert-2
    parameters: {weight: 0.4, density: 0.35}
  - model: ./expert-3
    parameters: {weight: 0.3, density: 0.2}
"""
UNLIKE = """
base_model: ./base
models:
  - model: ./base
  - model: ./stranger
"""
WEIGHED = EXPERTS.replace(", density: 0.6", "").replace(", density: 0.35", "").replace(", density: 0.2", "")
UNWEIGHED = EXPERTS.replace("parameters", "#")
EVERY_DENSITY = WEIGHED + "parameters: {density: %s}\n"
BASELESS_UNWEIGHED = UNWEIGHED.replace("base_model: ./base", "")
TWO = """
models:
  - {model: ./expert-1, parameters: {weight: 0.7}}
  - {model: ./stranger, parameters: {weight: 0.4}}
"""
TO_BASE = "\nbase_model: ./base\nmodels: [{model: ./base}, {model: ./expert-3}]\n"
BASELESS = WEIGHED.replace("base_model: ./base", "")
NEGATIVE = WEIGHED.replace("0.4", "-0.2")

METHODS = {
    "linear": "merge_method: linear" + BASELESS,
    "linear, not normalised": "merge_method: linear\nparameters: {normalize: false}" + BASELESS,
    "linear, a negative weight": "merge_method: linear" + NEGATIVE.replace("base_model: ./base", ""),
    "linear, the base is one more model": "merge_method: linear\nparameters: {weight: 0.5}" + WEIGHED,
    "task_arithmetic": "merge_method: task_arithmetic" + WEIGHED,
    "task_arithmetic, normalised": "merge_method: task_arithmetic\nparameters: {normalize: true}" + WEIGHED,
    "task_arithmetic, lambda": "merge_method: task_arithmetic\nparameters: {normalize: true, lambda: 0.3}" + WEIGHED,
    "task_arithmetic, a negative weight": "merge_method: task_arithmetic" + NEGATIVE,
    "task_arithmetic, a density without effect": "merge_method: task_arithmetic" + EXPERTS,
    "slerp": "merge_method: slerp\nparameters: {t: 0.3}" + UNLIKE,
    "slerp, parallel": "merge_method: slerp\nparameters: {t: 0.3}" + UNLIKE.replace("stranger", "expert-1"),
    "slerp, the base is listed last": "merge_method: slerp\nparameters: {t: 0.8}\nbase_model: ./base\n"
    "models: [{model: ./stranger}, {model: ./base}]\n",
    "slerp, the base is not listed": "merge_method: slerp\nparameters: {t: 0.8}\nbase_model: ./base\n"
    "models: [{model: ./stranger}]\n",
    "slerp, both ends": "merge_method: slerp\n"
    "parameters: {t: [{filter: mlp, value: 0}, {filter: attn, value: 1}, {value: 0.5}]}" + UNLIKE,
    "ties": "merge_method: ties" + EXPERTS,
    "ties, every density 1": "merge_method: ties" + WEIGHED,
    "ties, at least one entry": "merge_method: ties" + EVERY_DENSITY % 0.0001,
    "ties, not normalised": "merge_method: ties\nparameters: {normalize: false, int8_mask: true}" + EXPERTS,
    "ties, lambda": "merge_method: ties\nparameters: {lambda: 0.4}" + EXPERTS,
    "ties, rescaled": "merge_method: ties\nparameters: {rescale: true}" + EXPERTS,
    "ties, some rescaled, a density of each layer": "merge_method: ties\n"
    "parameters: {rescale: [{filter: mlp, value: true}, {value: false}], density: [0.2, 0.9], lambda: 0.5}" + WEIGHED,
    "ties, a negative weight": "merge_method: ties" + NEGATIVE,
    "dare_linear, nothing dropped": "merge_method: dare_linear" + WEIGHED,
    "dare_linear, nothing dropped, normalised": "merge_method: dare_linear\n"
    "parameters: {normalize: true, lambda: 0.3}" + WEIGHED,
    "dare_ties, nothing dropped": "merge_method: dare_ties" + WEIGHED,
    "dare_ties, nothing dropped, normalised": "merge_method: dare_ties\n"
    "parameters: {normalize: true, rescale: false}" + WEIGHED,
    "breadcrumbs": "merge_method: breadcrumbs" + EXPERTS,
    "breadcrumbs, gamma": "merge_method: breadcrumbs\nparameters: {gamma: 0.1}" + EXPERTS,
    "breadcrumbs, one density and a gamma of each": "merge_method: breadcrumbs"
    + EVERY_DENSITY.replace("0.7", "0.7, gamma: 0.05").replace("0.3}", "0.3, gamma: 0.2}") % 0.5,
    "breadcrumbs, every density 1": "merge_method: breadcrumbs\nparameters: {gamma: 0.1}" + WEIGHED,
    "breadcrumbs, more than there is": "merge_method: breadcrumbs"
    + EVERY_DENSITY.replace("{density", "{gamma: 0.3, density") % 0.9,
    "breadcrumbs, normalised": "merge_method: breadcrumbs\nparameters: {normalize: true, lambda: 0.4}" + EXPERTS,
    "breadcrumbs, rescaled": "merge_method: breadcrumbs\nparameters: {rescale: true}" + EXPERTS,
    "model_stock": "merge_method: model_stock" + UNWEIGHED,
    "model_stock, filter_wise": "merge_method: model_stock\nparameters: {filter_wise: true}" + UNWEIGHED,
    "model_stock, of two": "merge_method: model_stock\nbase_model: ./base\n"
    "models: [{model: ./expert-1}, {model: ./expert-2}]\n",
    "breadcrumbs_ties": "merge_method: breadcrumbs_ties" + EXPERTS,
    "breadcrumbs_ties, normalised": "merge_method: breadcrumbs_ties\n"
    "parameters: {normalize: true, gamma: 0.1, lambda: 0.4, int8_mask: true}" + EXPERTS,
    "breadcrumbs_ties, rescaled": "merge_method: breadcrumbs_ties\nparameters: {rescale: true}" + EXPERTS,
    "breadcrumbs_ties, a negative weight": "merge_method: breadcrumbs_ties" + NEGATIVE,
    "della, nothing dropped": "merge_method: della" + WEIGHED,
    "della, nothing dropped, not normalised": "merge_method: della\n"
    "parameters: {normalize: false, lambda: 0.3, epsilon: 0.1, rescale: false, int8_mask: true}" + WEIGHED,
    "della_linear, nothing dropped": "merge_method: della_linear" + WEIGHED,
    "della_linear, nothing dropped, normalised": "merge_method: della_linear\n"
    "parameters: {normalize: true, lambda: 0.3}" + WEIGHED,
    "sce": "merge_method: sce" + UNWEIGHED,
    "sce, some selected": "merge_method: sce\nparameters: {select_topk: 0.3, int8_mask: true}" + UNWEIGHED,
    "sce, nothing selected": "merge_method: sce\nparameters: {select_topk: 0}" + UNWEIGHED,
    "nuslerp": "merge_method: nuslerp" + TWO,
    "nuslerp, by row": "merge_method: nuslerp\nparameters: {nuslerp_flatten: false}" + TWO,
    "nuslerp, by column": "merge_method: nuslerp\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}" + TWO,
    "nuslerp, on deltas": "merge_method: nuslerp\nbase_model: ./base" + TWO,
    "nuslerp, on deltas, by row": "merge_method: nuslerp\nbase_model: ./base\n"
    "parameters: {nuslerp_flatten: false}" + TWO,
    "nuslerp, on deltas, by column": "merge_method: nuslerp\nbase_model: ./base\n"
    "parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}" + TWO,
    "multislerp": "merge_method: multislerp" + BASELESS,
    "multislerp, on deltas": "merge_method: multislerp" + WEIGHED,
    "multislerp, not normalised": "merge_method: multislerp\n"
    "parameters: {normalize_weights: false, eps: 1.0e-5}" + WEIGHED,
    "karcher": "merge_method: karcher" + BASELESS_UNWEIGHED,
    "karcher, unlike": "merge_method: karcher\nparameters: {max_iter: 20, tol: 1.0e-6}"
    + UNLIKE.replace("base_model: ./base", ""),
    "karcher, the base is one more model": "merge_method: karcher" + UNWEIGHED,
    "karcher, no steps": "merge_method: karcher\nparameters: {max_iter: 0}" + UNLIKE,
    "nearswap": "merge_method: nearswap\nparameters: {t: 0.001}" + TO_BASE,
    "nearswap, a gradient": "merge_method: nearswap\nparameters: {t: [0.0001, 0.01]}" + TO_BASE,
    "ram": "merge_method: ram" + UNWEIGHED,
    "ram, few changes": "merge_method: ram\nparameters: {epsilon: 0.003}" + UNWEIGHED,
    "ramplus_tl": "merge_method: ramplus_tl" + UNWEIGHED,
    "ramplus_tl, few changes": "merge_method: ramplus_tl\nparameters: {epsilon: 0.003, r: 0.5, alpha: 0.7}" + UNWEIGHED,
    "passthrough": "merge_method: passthrough\nmodels: [{model: ./expert-2}]\n",
    "passthrough, scaled": "merge_method: passthrough\nmodels: [{model: ./expert-2, parameters: {scale: 0.7}}]\n",
    "passthrough, some scaled": "merge_method: passthrough\nmodels:\n  - model: ./expert-2\n"
    "    parameters: {scale: [{filter: o_proj, value: 0}, {filter: mlp, value: [0.5, 2]}]}\n",
    "passthrough, scaled for all": "merge_method: passthrough\nparameters: {scale: [0.5, 2]}\n"
    "models: [{model: ./expert-2}]\n",
}

_FIRST = """
merge_method: task_arithmetic
base_model: ./base
models:
  - model: ./expert-1
    parameters: {weight: %s}
  - model: ./expert-2
"""
_TWO = _FIRST + "    parameters: {weight: 0.3}\n"
_FALLS = _FIRST + "parameters: {weight: %s}\n"
DIALECT = {
    "a gradient of two": _TWO % "[0.2, 1.0]",
    "a gradient of five over four layers": _TWO % "[0.2, 1.0, 0, -0.5, 0.4]",
    "a gradient of one": _TWO % "[0.6]",
    "a filter that ends with a value": _TWO % "[{filter: mlp, value: 0.9}, {value: 0.2}]",
    "the first filter wins": _TWO % "[{filter: proj, value: 0.9}, {filter: q_proj, value: 0.5}, {value: 0.2}]",
    "a filter is no pattern": _TWO % "[{filter: q.proj, value: 0.9}, {filter: '.1.', value: 0.5}, {value: 0.2}]",
    "a star": _TWO % "[{filter: norm, value: 0.9}, {filter: '*', value: 0.2}, {filter: mlp, value: 3}]",
    "an empty filter": _TWO % "[{filter: '', value: 0.2}]",
    "one filtered value": _FALLS % ("{filter: attn, value: 0.9}", "0.1"),
    "one value without a filter": _TWO % "{value: 0.35}",
    "a filtered gradient": _TWO % "[{filter: mlp, value: [0.2, 1.0]}, {filter: attn, value: [1, 0, 1]}, {value: 0.2}]",
    "no filter finds it: the value for all": _FALLS
    % ("[{filter: attn, value: 0.9}, {filter: mlp, value: 0.5}]", "0.1"),
    "no filter finds it: the filters for all": _FALLS
    % ("[{filter: attn, value: 0.9}]", "[{filter: mlp, value: [0, 1]}, {filter: norm, value: 2}, {value: 0.1}]"),
    "a model's value over that for all": _FALLS % ("0.25", "0.75"),
    "an empty list says nothing": _FALLS % ("[]", "0.75"),
    "the base is listed, with parameters": "merge_method: task_arithmetic\nbase_model: ./base\nmodels:\n"
    "  - {model: ./base, parameters: {weight: 0.9}}\n  - {model: ./expert-1, parameters: {weight: 0.5}}\n",
    "the base is listed in the middle": "merge_method: ties\nbase_model: ./base\n"
    "parameters: {weight: 0.5, density: 0.5}\nmodels:\n"
    "  - {model: ./expert-2}\n  - {model: ./base, parameters: {density: 0.1}}\n  - {model: ./expert-1}\n",
    "the base is one of the linear models": "merge_method: linear\nbase_model: ./base\nmodels:\n"
    "  - {model: ./base, parameters: {weight: 0.9}}\n  - {model: ./expert-1, parameters: {weight: 0.5}}\n",
    "a model as a mapping": "merge_method: linear\nmodels:\n"
    "  - {model: {model: {path: ./expert-1}}, parameters: {weight: 0.4}}\n"
    "  - {model: {model: ./expert-2}, parameters: {weight: 0.5}}\n",
    "gradients of density and t": "merge_method: breadcrumbs\nbase_model: ./base\nmodels:\n"
    "  - {model: ./expert-1, parameters: {weight: 0.5, density: [0.9, 0.2], gamma: [0, 0.3, 0]}}\n"
    "  - {model: ./expert-2, parameters: {weight: [0.5, 1], density: 0.3}}\nparameters: {lambda: [1, 0.5]}\n",
    "a gradient of t": "merge_method: slerp\nparameters: {t: [{filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}, "
    "{filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}, {value: 0.5}]}" + UNLIKE,
    "a filtered flag": "merge_method: ties\n"
    "parameters: {normalize: [{filter: mlp, value: false}, {value: true}]}" + EXPERTS,
    "a filtered flag without an end": "merge_method: linear\nparameters: {normalize: {filter: mlp, value: false}}"
    + BASELESS,
    "a tokenizer of the base": "merge_method: linear\nbase_model: ./base\ntokenizer_source: base\n"
    "parameters: {weight: 1}\n"
    "models: [{model: ./base}, {model: ./expert-1}]\n",
    "yes and no": "merge_method: ties\nparameters: {normalize: no, int8_mask: yes}" + EXPERTS,
}
