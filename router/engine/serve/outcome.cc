// How calls and exchanges end: answers, refusals, what is counted, and what is reused.
#include "engine.h"
#include "serve/loop.h"

namespace router {

VariantCells* Loop::cells_of(const Call& call) const {
  if (call.model == FH_NONE) return core_->nobody->loops[index_].get();
  if (call.decision.outcome != FH_ROUTED || call.decision.cell == FH_NONE) {
    return call.table->refused[call.model];
  }
  return call.table->variants[call.assigned].cells;
}

void Loop::answer(Call* call, unsigned served, const Judgement& judgement) {
  Exchange* exchange = call->exchange;
  // An error of another of its calls ended the stream: nobody hears this answer.
  if (exchange->is_finished) return cancel_call(call);
  const LiveTable& table = *call->table->live;
  const fh_model& model = table.view.models[call->model];
  const Attempt& attempt = call->attempts[served];
  const bool wants_id = (model.flags & FH_MODEL_PREDICTION_ID) != 0;
  const auto now_s = wants_id ? static_cast<uint32_t>(realtime_ns() / 1'000'000'000) : 0u;
  annotate(*call, served, judgement, now_s, sequence_++, &annotations_);

  InferResponse response;
  response.model_name = call->request.model_name;
  response.model_version = table.view.variants[call->variants[served]].version;
  response.id = call->request.id;
  if ((model.annotate & FH_ANNOTATE_PARAMETERS) != 0) {
    response.encoded = annotations_.encoded;
    response.annotations = annotations_.items;
    response.annotation_count = annotations_.count;
  }
  response.outputs = attempt.outputs.data();
  response.output_count = attempt.outputs.size();
  Trailers trailers;
  if ((model.annotate & FH_ANNOTATE_TRAILERS) != 0) {
    as_trailers(&annotations_);
    trailers.extra = annotations_.fields;
    trailers.extra_count = annotations_.count;
  }
  Buffer frame;
  const bool is_streamed = exchange->kind == ExchangeKind::stream_infer;
  is_streamed ? write_stream_infer_frame(response, &frame) : write_infer_frame(response, &frame);
  if (frame.size() > core_->options.message_out_max) {
    return refuse(call, fail(Situation::message_too_large, "the answer is too large"));
  }
  if (is_streamed) {
    send_in_order(exchange, call->place, std::move(frame));
  } else if (exchange->local != nullptr) {
    exchange->is_finished = true;
    finish_local(exchange, trailers, frame.view().substr(5));
  } else {
    exchange->is_finished = true;
    exchange->connection->grpc.respond(exchange->stream, std::move(frame), trailers);
    mark_dirty(exchange->connection);
  }
  VariantCells* cells = cells_of(*call);
  if (judgement.has_score) {
    cells->score_count.add(1);
    cells->score_sum.add(judgement.score);
    cells->score_squares.add(judgement.score * judgement.score);
    if (call->first != nullptr) watch_score(*call, judgement.score);
  }
  if ((model.flags & FH_MODEL_EXPOSURES) != 0) record_exposure(*call, served, judgement);
  StageHistograms& stages = cells->stages();
  stages.stages[static_cast<unsigned>(Stage::decode)].observe(call->decoded_ns -
                                                              call->received_ns);
  answered_.push_back({&stages, call->received_ns});
  if (call->shadowed != nullptr) start_shadows(call, served);
  settle(call, Code::ok);
}

void Loop::send_in_order(Exchange* exchange, uint64_t place, Buffer&& frame) {
  auto& answers = exchange->answers;
  answers[place - exchange->answers_from] = std::move(frame);
  size_t ready = 0;
  while (ready < answers.size() && !answers[ready].empty()) {
    exchange->connection->grpc.send_message(exchange->stream, std::move(answers[ready++]));
  }
  answers.erase(answers.begin(), answers.begin() + static_cast<std::ptrdiff_t>(ready));
  exchange->answers_from += ready;
  mark_dirty(exchange->connection);
}

void Loop::refuse(Call* call, const Status& status) {
  Exchange* exchange = call->exchange;
  counters_.situations[static_cast<unsigned>(status.situation)].add(1);
  if (exchange->kind == ExchangeKind::stream_infer && !exchange->wants_status) {
    if (exchange->stream != nullptr && !exchange->is_finished) {
      Buffer frame;
      write_stream_error_frame(status.message, call->request.id, &frame);
      send_in_order(exchange, call->place, std::move(frame));
    }
  } else {
    finish_exchange(exchange, status);
  }
  settle(call, status.code());
}

// The call is answered: counts it, and frees it once no attempt is out. An attempt that still
// is, such as a candidate that hangs while stable answered, is waited for no more.
void Loop::settle(Call* call, Code code) {
  abandon_attempts(call);
  VariantCells* cells = cells_of(*call);
  cells->codes[static_cast<unsigned>(code)].add(1);
  cells->last_ms.set(static_cast<uint64_t>(now_ns_ / 1'000'000));
  if (call->first != nullptr) charge_outcome(call, code);
  call->is_answered = true;
  timers_.cancel(call);
  if (!call->is_out_at_all()) release_call(call);
}

void Loop::observe_batch(const Batch& batch) {
  if (batch.finished_ns == 0 || batch.attempts.empty()) return;
  const auto* first = static_cast<const Call*>(batch.attempts[0]->owner);
  const auto which = static_cast<unsigned>(batch.attempts[0] - first->attempts);
  VariantCells* cells = first->table->variants[first->variants[which]].cells;
  StageHistograms& stages = cells->stages();
  const int64_t run_ns = batch.finished_ns - batch.started_ns;
  for (const Attempt* attempt : batch.attempts) {
    const auto* call = static_cast<const Call*>(attempt->owner);
    // A fallback's wait began when it was queued, not when its candidate was.
    const bool is_first = attempt == &call->attempts[0];
    const int64_t queued_ns =
        batch.started_ns - (is_first ? call->decoded_ns : batch.submitted_ns);
    stages.stages[static_cast<unsigned>(Stage::queue)].observe(queued_ns);
    stages.stages[static_cast<unsigned>(Stage::run)].observe(run_ns);
    cells->queue_ns.add(static_cast<uint64_t>(queued_ns < 0 ? 0 : queued_ns));
  }
  unsigned power = 0;
  while (power < 11 && (uint64_t{2} << power) <= batch.rows) ++power;
  cells->batch_runs[power].add(1);
  cells->batch_ns[power].add(static_cast<uint64_t>(run_ns));
}

void Loop::finish_exchange(Exchange* exchange, const Status& status) {
  if (exchange->is_finished) return;
  exchange->is_finished = true;
  exchange->body = BodyRef();
  const Trailers trailers{status.code(), status.message,
                          advice_for(status.situation).pushback_ms, nullptr, 0};
  if (exchange->kind == ExchangeKind::method) {
    method_codes_[exchange->method][static_cast<unsigned>(status.code())].add(1);
    method_exchanges_.erase(exchange->id);
    if (core_->methods.info(exchange->method).is_streaming) {
      core_->methods.push({exchange->id, exchange->method, ENGINE_EVENT_CANCELLED, {}, {}});
    }
  }
  if (exchange->local != nullptr) return finish_local(exchange, trailers, {});
  if (exchange->stream == nullptr) return;
  exchange->connection->grpc.finish(exchange->stream, trailers);
  mark_dirty(exchange->connection);
}

void Loop::finish_local(Exchange* exchange, const Trailers& trailers, std::string_view message) {
  LocalCall* local = exchange->local;
  local->code = trailers.code;
  local->detail = std::string(trailers.message);
  if (message.data() != local->message.data()) local->message = std::string(message);
  for (size_t i = 0; i < trailers.extra_count; ++i) {
    local->trailers.append(trailers.extra[i].name).push_back('\0');
    local->trailers.append(trailers.extra[i].value).push_back('\0');
  }
  if (trailers.pushback_ms != kNoPushback) {
    local->trailers.append("grpc-retry-pushback-ms").push_back('\0');
    local->trailers.append(std::to_string(trailers.pushback_ms)).push_back('\0');
  }
  finished_locals_.push_back(local);
}

// At the end of the turn, like a write to a socket: all of it is counted by then.
void Loop::wake_local_callers() {
  for (LocalCall* local : finished_locals_) {
    std::lock_guard<std::mutex> lock(local->mutex);
    local->is_done = true;
    // Under the lock: the caller may free the LocalCall as soon as it sees is_done.
    local->ready.notify_one();
  }
  finished_locals_.clear();
}

Call* Loop::make_call() {
  if (free_calls_.empty()) {
    call_store_.push_back(std::make_unique<Call>());
    free_calls_.push_back(call_store_.back().get());
  }
  Call* call = free_calls_.back();
  free_calls_.pop_back();
  call->request.clear();
  call->decision.outcome = FH_REFUSED_UNIT;  // until it is routed, it is nobody's
  call->is_answered = call->has_fallback = call->was_late = false;
  call->fallback_ns = INT64_MAX;
  call->unit_tag = 0;
  call->first = nullptr;
  call->charged = 0;
  return call;
}

void Loop::release_call(Call* call) {
  Exchange* exchange = call->exchange;
  for (size_t i = 0; i < exchange->calls.size(); ++i) {
    if (exchange->calls[i] != call) continue;
    exchange->calls[i] = exchange->calls.back();
    exchange->calls.pop_back();
    break;
  }
  for (Attempt& attempt : call->attempts) {
    attempt.outputs.clear();
    attempt.result = ResultRef();
  }
  if (call->shadowed != nullptr) forget_shadows(call);
  call->body = BodyRef();
  if (call->table != nullptr) release_table(call->table);
  call->table = nullptr;
  counters_.calls.store(counters_.calls.load(std::memory_order_relaxed) - 1,
                        std::memory_order_relaxed);
  free_calls_.push_back(call);
  if (!exchange->calls.empty()) return;
  if (exchange->kind == ExchangeKind::stream_infer && exchange->is_half_closed &&
      !exchange->is_finished) {
    finish_exchange(exchange, Status{});
  }
  if (exchange->stream == nullptr && exchange->is_finished) release_exchange(exchange);
}

Batch* Loop::make_batch() {
  if (free_batches_.empty()) {
    batch_store_.push_back(std::make_unique<Batch>());
    free_batches_.push_back(batch_store_.back().get());
  }
  Batch* batch = free_batches_.back();
  free_batches_.pop_back();
  return batch;
}

Exchange* Loop::make_exchange() {
  if (free_exchanges_.empty()) {
    exchange_store_.push_back(std::make_unique<Exchange>());
    free_exchanges_.push_back(exchange_store_.back().get());
  }
  Exchange* exchange = free_exchanges_.back();
  free_exchanges_.pop_back();
  ++exchanges_open_;
  return exchange;
}

void Loop::release_exchange(Exchange* exchange) {
  --exchanges_open_;
  std::vector<Call*> calls = std::move(exchange->calls);
  calls.clear();
  *exchange = Exchange{};
  exchange->calls = std::move(calls);
  free_exchanges_.push_back(exchange);
}

}  // namespace router
