# Written from kernel/src/settings/keys.rs by a test, see kernel/src/settings/docs.rs.

# Settings by their own names.
keys := \
    mode model prompt prompt_file max_tokens context kv_cache cut_prompt parse_special \
    context_shift keep seed grammar json_schema temperature top_k top_p min_p typical_p \
    repeat_penalty frequency_penalty presence_penalty penalty_last_n dry_multiplier dry_base \
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers top_n_sigma xtc_probability \
    xtc_threshold mirostat mirostat_tau mirostat_eta logit_bias system chat_template \
    chat_system_prefix chat_system_suffix chat_user_prefix chat_user_suffix chat_assistant_prefix \
    chat_assistant_suffix chat_first_user_prefix chat_after_system_prefix chat_tools_place \
    chat_tools_form chat_tools_prefix chat_tools_suffix chat_tools_separator \
    chat_tools_system_prefix chat_tools_system_suffix chat_tools_user_prefix chat_calls_prefix \
    chat_calls_arguments_prefix chat_calls_id_prefix chat_calls_separator chat_calls_suffix \
    chat_calls_text_suffix chat_results_prefix chat_results_id_prefix chat_results_separator \
    chat_results_suffix chat_results_last_suffix chat_results_form port parallel api_key cors \
    shutdown_timeout ip gateway threads log verify at_exit tests

# Their second names.
variable.mode := MODE
variable.prompt := PROMPT
variable.max_tokens := TOKENS
variable.context := CTX
variable.kv_cache := KV_CACHE
variable.context_shift := CONTEXT_SHIFT
variable.keep := KEEP
variable.seed := SEED
variable.grammar := GRAMMAR
variable.json_schema := JSON_SCHEMA
variable.temperature := TEMPERATURE
variable.top_k := TOP_K
variable.top_p := TOP_P
variable.min_p := MIN_P
variable.repeat_penalty := REPEAT_PENALTY
variable.system := SYSTEM
variable.parallel := PARALLEL
variable.api_key := API_KEY
variable.verify := VERIFY

#:
#: Settings of what the guest does, by either name (make run TOKENS=40 top_k=20):
#:
#:   Mode, model and prompt
#:     mode MODE
#:         What to do with the model [default: generate]
#:     model MODEL
#:         The model to load [default: the only model on the disk]
#:     prompt PROMPT
#:         Text to continue; in a chat, the first message [default: Once upon a time; in a chat
#:         none]
#:     prompt_file PROMPT_FILE
#:         A file that holds the prompt [default: none]
#:
#:   Length and context
#:     max_tokens TOKENS
#:         Number of tokens to generate at most [default: 128]
#:     context CTX
#:         Positions of the KV cache [default: 256, or the model's own if less]
#:     kv_cache KV_CACHE
#:         Format of the KV cache [default: f16]
#:     cut_prompt
#:         Cut a prompt that does not fit into the context, instead of refusing the prompt
#:         [default: false]
#:     parse_special
#:         Names of control tokens in a prompt (</s>, <|im_end|>) are those tokens, as in llama.cpp
#:         [default: true; in mode perplexity false]
#:     context_shift CONTEXT_SHIFT
#:         Drop half of the text and go on when the context is full, instead of stopping [default:
#:         false]
#:     keep KEEP
#:         Tokens at the start of the first prompt that are never cut or dropped; -1: all [default:
#:         0]
#:
#:   Sampler, with the names of llama.cpp
#:     seed SEED
#:         Seed of the sampler [default: another one at each start]
#:     grammar GRAMMAR
#:         A grammar in llama.cpp's GBNF, such as root ::= "yes" | "no" [default: none]
#:     json_schema JSON_SCHEMA
#:         A JSON schema [default: none]
#:     temperature TEMPERATURE
#:         Temperature of the sampler; 0 always takes the most likely token [default: 0]
#:     top_k TOP_K
#:         Sample from this many of the most likely tokens; 0: from all [default: 40]
#:     top_p TOP_P
#:         Sample from the most likely tokens that reach this probability together [default: 0.95]
#:     min_p MIN_P
#:         Sample from tokens with at least this share of the largest probability [default: 0.05]
#:     typical_p
#:         Locally typical sampling: sample from the tokens whose surprise is nearest to the
#:         expected one, up to this probability; 1: off [default: 1]
#:     repeat_penalty REPEAT_PENALTY
#:         Above 1, the last tokens become less likely; 1: off [default: 1]
#:     frequency_penalty
#:         Subtracted from a token's logit for each time that the token is among the last ones
#:         [default: 0]
#:     presence_penalty
#:         Subtracted from a token's logit if the token is among the last ones [default: 0]
#:     penalty_last_n
#:         Number of last tokens that the penalties count [default: 64]
#:     dry_multiplier
#:         DRY: strength of the penalty on tokens that continue a repetition; 0: off [default: 0]
#:     dry_base
#:         DRY: base of the penalty, which grows with each repeated token [default: 1.75]
#:     dry_allowed_length
#:         DRY: number of tokens that may be repeated [default: 2]
#:     dry_penalty_last_n
#:         DRY: number of last tokens that are searched for repetitions [default: 64]
#:     dry_sequence_breakers
#:         DRY: texts that end a repetition [default: ["\n", ":", "\"", "*"]]
#:     top_n_sigma
#:         Sample from tokens whose logit is at most this many standard deviations below the
#:         largest; 0: from all [default: 0]
#:     xtc_probability
#:         XTC: probability of removing all tokens above the threshold except the least likely one
#:         [default: 0]
#:     xtc_threshold
#:         XTC: probability from which tokens are removed [default: 0.1]
#:     mirostat
#:         2: Mirostat 2, in place of all sampler settings but temperature and logit_bias; 0: off
#:         [default: 0]
#:     mirostat_tau
#:         Mirostat: target surprise in bits [default: 5]
#:     mirostat_eta
#:         Mirostat: learning rate [default: 0.1]
#:     logit_bias
#:         Added to the logits of tokens, by token number; -inf bans a token [default: none]
#:
#:   Chats
#:     system SYSTEM
#:         System message of a chat [default: none]
#:     chat_template
#:         Text around the messages of a chat [default: auto]
#:     chat_system_prefix
#:         Text before the system message of a chat [default: none]
#:     chat_system_suffix
#:         Text after the system message of a chat [default: none]
#:     chat_user_prefix
#:         Text before each message of a chat [default: none]
#:     chat_user_suffix
#:         Text after each message of a chat [default: none]
#:     chat_assistant_prefix
#:         Text before each answer of a chat [default: none]
#:     chat_assistant_suffix
#:         Text after each answer of a chat [default: none]
#:     chat_first_user_prefix
#:         Text before the first message of a chat without a system message [default:
#:         chat_user_prefix]
#:     chat_after_system_prefix
#:         Text before the first message of a chat with a system message [default:
#:         chat_user_prefix]
#:     chat_tools_place
#:         Where the tools of a request stand: beside the system message, or later [default:
#:         after-system]
#:     chat_tools_form
#:         How the JSON of a tool is written [default: tool]
#:     chat_tools_prefix
#:         Text before the tools of a request [default: none]
#:     chat_tools_suffix
#:         Text after the tools of a request [default: none]
#:     chat_tools_separator
#:         Text between two tools [default: none]
#:     chat_tools_system_prefix
#:         Text before a system message that stands beside tools [default: none]
#:     chat_tools_system_suffix
#:         Text after a system message that stands beside tools [default: none]
#:     chat_tools_user_prefix
#:         Text before the first message of the user that stands behind tools [default:
#:         chat_user_prefix]
#:     chat_calls_prefix
#:         Text before the name in the first call of an answer [default: none]
#:     chat_calls_arguments_prefix
#:         Text between the name and the arguments of a call [default: none]
#:     chat_calls_id_prefix
#:         Text between the arguments and the ID of a call [default: no ID]
#:     chat_calls_separator
#:         Text from the end of a call to the name of the next one [default: one call an answer]
#:     chat_calls_suffix
#:         Text after the last call of an answer [default: none]
#:     chat_calls_text_suffix
#:         Text between the text and the calls of an answer [default: the text is left out]
#:     chat_results_prefix
#:         Text before the results of calls [default: none]
#:     chat_results_id_prefix
#:         Text between a result and the ID of its call [default: no ID]
#:     chat_results_separator
#:         Text between two results [default: none]
#:     chat_results_suffix
#:         Text after the results of calls [default: none]
#:     chat_results_last_suffix
#:         Text after the results of calls that an answer follows [default: chat_results_suffix]
#:     chat_results_form
#:         Whether the result of a call is written as it is, or as a JSON string [default: plain]
#:
#:   Network
#:     port
#:         TCP port of the server [default: 8080]
#:     parallel PARALLEL
#:         Requests that run at once, each with a context of its own [default: 4]
#:     api_key API_KEY
#:         Keys, one of which each request must have: Authorization: Bearer KEY or X-Api-Key: KEY
#:         [default: none: everyone may ask]
#:     cors
#:         Pages of other sites that may use the server from a browser [default: localhost]
#:     shutdown_timeout
#:         Seconds that running requests have after Ctrl-C on the console [default: 10]
#:     ip
#:         Addresses of the machine [default: dhcp]
#:     gateway
#:         Routers that packets to other networks go to, where ip gives addresses [default: none;
#:         with ip=dhcp what the network says]
#:
#:   Machine and self-tests
#:     threads
#:         Number of cores to use [default: all]
#:     log
#:         Least level of the log messages that are shown [default: warn]
#:     verify VERIFY
#:         Compare the model's SHA-256 with the .sha256 file beside the model [default: true]
#:     at_exit
#:         What the machine does after the exit event of a run that ends by itself [default:
#:         power-off]
#:     tests
#:         Self-tests that mode test runs [default: all]
