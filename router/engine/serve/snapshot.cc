// All counters at about one instant, as JSON. Not a consistent cut: loops go on counting
// while it is read, so a small difference of two counters means nothing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "run/upstream.h"
#include "serve/answer.h"
#include "serve/json.h"
#include "serve/plane.h"

namespace router {
namespace {

template <typename Get>
uint64_t over_loops(const VariantEntry& entry, Get get) {
  uint64_t total = 0;
  for (const auto& cells : entry.loops) total += get(*cells).get();
  return total;
}

double score_over_loops(const VariantEntry& entry, Sum VariantCells::*member) {
  double total = 0;
  for (const auto& cells : entry.loops) total += ((*cells).*member).get();
  return total;
}

void write_codes(Json* json, const VariantEntry& entry) {
  json->key("codes").open('{');
  for (unsigned code = 0; code < kCodeCount; ++code) {
    const uint64_t count =
        over_loops(entry, [code](const VariantCells& c) -> const Counter& { return c.codes[code]; });
    if (count != 0) json->key(code_name(static_cast<Code>(code))).value(count);
  }
  json->close('}');
}

void write_stage(Json* json, const VariantEntry& entry, unsigned stage) {
  std::vector<const Histogram*> parts;
  for (const auto& cells : entry.loops) {
    // Acquire: pairs with the loop that made the histograms.
    const StageHistograms* made = cells->histograms.load(std::memory_order_acquire);
    if (made != nullptr) parts.push_back(&made->stages[stage]);
  }
  write_histogram(json, parts);
}

void write_variant(Json* json, const VariantEntry& entry) {
  struct Field {
    const char* name;
    Counter VariantCells::*member;
  };
  constexpr Field kFields[] = {
      {"failures", &VariantCells::failures}, {"timeouts", &VariantCells::timeouts},
      {"invalid", &VariantCells::invalid},   {"fallbacks", &VariantCells::fallbacks},
      {"cancelled", &VariantCells::cancelled}, {"skipped", &VariantCells::skipped}};
  json->open('{');
  json->key("model").text(entry.model);
  json->key("variant").text(entry.variant);
  json->key("version").value(entry.version);
  json->key("ordinal").value(entry.ordinal);
  write_codes(json, entry);
  for (const Field& field : kFields) {
    json->key(field.name).value(over_loops(
        entry, [&](const VariantCells& c) -> const Counter& { return c.*field.member; }));
  }
  json->key("score").open('{');
  json->key("count").value(over_loops(
      entry, [](const VariantCells& c) -> const Counter& { return c.score_count; }));
  json->key("sum").real(score_over_loops(entry, &VariantCells::score_sum));
  json->key("sum_squares").real(score_over_loops(entry, &VariantCells::score_squares));
  json->close('}');
  json->key("stages").open('{');
  for (unsigned stage = 0; stage < kStageCount; ++stage) {
    json->key(stage_name(static_cast<Stage>(stage)));
    write_stage(json, entry, stage);
  }
  json->close('}');
  json->close('}');
}

void write_variants(Json* json, const Core& core) {
  json->key("variants").open('[');
  core.cells.each_variant([&](const VariantEntry& entry) { write_variant(json, entry); });
  json->close(']');
}

void write_routed(Json* json, const Core& core) {
  constexpr const char* kSources[] = {"parameter", "metadata", "tensor", "sequence", "none"};
  json->key("routed").open('[');
  core.cells.each_route([&](const RouteEntry& entry) {
    json->open('{');
    json->key("model").text(entry.model);
    json->key("rule").text(entry.rule);
    json->key("variant").text(entry.variant);
    json->key("version").value(entry.version);
    json->key("ordinal").value(entry.ordinal);
    json->key("reason").text(reason_name(entry.reason));
    for (unsigned source = 0; source < 5; ++source) {
      uint64_t total = 0;
      for (const auto& cell : entry.loops) {
        // The kernel stores these relaxed; so are they read.
        total += __atomic_load_n(&cell->cell.routed[source], __ATOMIC_RELAXED);
      }
      json->key(kSources[source]).value(total);
    }
    json->close('}');
  });
  json->close(']');
}

// What the variants of one version add up to.
struct VersionTotals {
  uint64_t queue_ns = 0, last_ms = 0, trips = 0;
  uint64_t batch_runs[12] = {}, batch_ns[12] = {};
  bool is_open = false;
};

void add_totals(const VariantEntry& entry, VersionTotals* totals) {
  for (const auto& cells : entry.loops) {
    totals->queue_ns += cells->queue_ns.get();
    totals->last_ms = std::max(totals->last_ms, cells->last_ms.get());
    totals->trips += cells->breaker.trips();
    totals->is_open = totals->is_open || cells->breaker.is_open();
    for (unsigned power = 0; power < 12; ++power) {
      totals->batch_runs[power] += cells->batch_runs[power].get();
      totals->batch_ns[power] += cells->batch_ns[power].get();
    }
  }
}

void write_tensors(Json* json, const char* key, const std::vector<TensorSpec>& specs) {
  json->key(key).open('[');
  for (const TensorSpec& spec : specs) {
    if (!spec.is_served) continue;
    json->open('{');
    json->key("name").text(spec.name);
    json->key("datatype").text(datatype_name(spec.type));
    json->key("shape").open('[');
    for (unsigned i = 0; i < spec.shape.rank; ++i) json->number(spec.shape.dims[i]);
    json->close(']');
    json->close('}');
  }
  json->close(']');
}

void write_texts(Json* json, const char* key, const std::vector<std::string>& texts) {
  json->key(key).open('[');
  for (const std::string& text : texts) json->text(text);
  json->close(']');
}

void write_version(Json* json, const Version& version, const VersionTotals& totals,
                   const Executors& executors) {
  const VersionCounters& counters = version.counters;
  const auto get = [](const std::atomic<uint64_t>& c) {
    return c.load(std::memory_order_relaxed);
  };
  json->open('{');
  json->key("model").text(version.model);
  json->key("version").value(version.number);
  json->key("is_ready").boolean(true);
  json->key("platform").text(version.platform);
  write_texts(json, "providers", version.providers);
  write_texts(json, "warnings", version.warnings);
  write_tensors(json, "inputs", version.signature.inputs);
  write_tensors(json, "outputs", version.signature.outputs);
  json->key("may_batch").boolean(version.may_batch);
  json->key("is_proved").boolean(version.is_proved());
  json->key("runs").value(get(counters.runs));
  json->key("rows").value(get(counters.rows));
  json->key("run_ns").value(get(counters.run_ns));
  json->key("cpu_ns").value(get(counters.cpu_ns));
  json->key("failures").value(get(counters.failures));
  json->key("terminated").value(get(counters.terminated));
  json->key("overruns").value(get(counters.overruns));
  json->key("memory_bytes").value(version.memory_bytes);
  json->key("queued").value(executors.queued(version));
  json->key("breaker").text(totals.is_open ? "open" : "closed");
  json->key("breaker_trips").value(totals.trips);
  // Loops note monotonic time; the protocol wants milliseconds since 1970.
  const auto since_1970 = static_cast<uint64_t>((realtime_ns() - monotonic_ns()) / 1'000'000);
  json->key("last_ms").value(totals.last_ms == 0 ? 0 : totals.last_ms + since_1970);
  json->key("queue_ns").value(totals.queue_ns);
  json->key("batch_sizes").open('[');
  for (unsigned power = 0; power < 12; ++power) {
    if (totals.batch_runs[power] == 0) continue;
    json->open('[');
    json->value(uint64_t{1} << power);
    json->value(totals.batch_runs[power]);
    json->value(totals.batch_ns[power]);
    json->close(']');
  }
  json->close(']');
  json->key("last_error").text(version.last_error());
  if (version.upstream != nullptr) {
    uint64_t failures = 0;
    for (const auto& endpoint : version.upstream->endpoints) {
      failures += endpoint->failures.load(std::memory_order_relaxed);
    }
    json->key("lookup_failures").value(failures);
  }
  json->close('}');
}

void write_upstreams(Json* json, const Core& core) {
  json->key("upstreams").open('[');
  core.cells.each_target([json](const TargetEntry& entry) {
    uint64_t sent[kSendingCount] = {}, connections = 0, ejected = 0;
    for (const auto& cells : entry.loops) {
      for (unsigned i = 0; i < kSendingCount; ++i) sent[i] += cells->sent[i].get();
      connections += cells->connections.load(std::memory_order_relaxed);
      ejected += cells->ejected.load(std::memory_order_relaxed);
    }
    json->open('{');
    json->key("model").text(entry.model);
    json->key("version").value(entry.version);
    json->key("target").text(entry.target);
    json->key("connections").value(connections);
    json->key("ejected").value(ejected);
    json->key("sent").open('{');
    for (unsigned i = 0; i < kSendingCount; ++i) {
      json->key(sending_name(static_cast<Sending>(i))).value(sent[i]);
    }
    json->close('}');
    json->close('}');
  });
  json->close(']');
}

void write_tape(Json* json, const Core& core) {
  uint64_t waiting = 0;
  for (const auto& tape : core.tapes) waiting += tape->ring().waiting();
  json->key("tape").open('{');
  json->key("waiting_bytes").value(waiting);
  const auto write = [&](const char* name, uint64_t (Tape::*count)(Recorded) const) {
    json->key(name).open('{');
    for (unsigned kind = 1; kind < kRecordedCount; ++kind) {
      uint64_t total = 0;
      for (const auto& tape : core.tapes) total += ((*tape).*count)(Recorded{static_cast<uint8_t>(kind)});
      json->key(recorded_name(Recorded{static_cast<uint8_t>(kind)})).value(total);
    }
    json->close('}');
  };
  write("written", &Tape::written);
  write("dropped", &Tape::dropped);
  json->close('}');
}

void write_refused(Json* json, const Core& core) {
  json->key("refused").open('[');
  for (unsigned kind = 1; kind < static_cast<unsigned>(Situation::count); ++kind) {
    uint64_t total = 0;
    for (const auto& loop : core.loops) total += loop->counters().situations[kind].get();
    if (total == 0) continue;
    const Advice& advice = advice_for(static_cast<Situation>(kind));
    json->open('{');
    json->key("situation").text(advice.name);
    json->key("code").text(code_name(advice.code));
    json->key("count").value(total);
    json->close('}');
  }
  json->close(']');
}

void write_methods(Json* json, const Core& core) {
  json->key("methods").open('[');
  for (uint32_t method = 0; method < core.methods.size(); ++method) {
    json->open('{');
    json->key("path").text(core.methods.info(method).path);
    json->key("codes").open('{');
    for (unsigned code = 0; code < kCodeCount; ++code) {
      uint64_t total = 0;
      for (const auto& loop : core.loops) total += loop->method_codes()[method][code].get();
      if (total != 0) json->key(code_name(static_cast<Code>(code))).value(total);
    }
    json->close('}');
    json->close('}');
  }
  json->close(']');
}

void write_server(Json* json, const Core& core) {
  uint64_t accepted = 0, refused = 0, calls = 0;
  for (const auto& loop : core.loops) {
    accepted += loop->counters().accepted.get();
    refused += loop->counters().refused_connections.get();
    calls += loop->counters().calls.load(std::memory_order_relaxed);
  }
  json->key("is_draining").boolean(core.is_draining.load(std::memory_order_relaxed));
  json->key("connections").value(core.peers.connections());
  json->key("accepted").value(accepted);
  json->key("refused_connections").value(refused);
  json->key("calls").value(calls);
  json->key("body_bytes").value(core.bodies.used.load(std::memory_order_relaxed));
  json->key("abuse").open('{');
  for (unsigned kind = 0; kind < static_cast<unsigned>(Abuse::count); ++kind) {
    uint64_t total = 0;
    for (const auto& loop : core.loops) total += loop->counters().abuse[kind].get();
    json->key(abuse_name(static_cast<Abuse>(kind))).value(total);
  }
  json->close('}');
  json->key("tls_handshakes").open('{');
  for (unsigned kind = 1; kind < static_cast<unsigned>(TlsOutcome::count); ++kind) {
    uint64_t total = 0;
    for (const auto& loop : core.loops) total += loop->counters().handshakes[kind].get();
    json->key(tls_outcome_name(static_cast<TlsOutcome>(kind))).value(total);
  }
  json->close('}');
  const ExecutorCounters& counters = core.executors->counters();
  json->key("executors").open('{');
  json->key("abandoned").value(counters.abandoned.load(std::memory_order_relaxed));
  json->key("terminated_loop").value(counters.terminated_loop.load(std::memory_order_relaxed));
  json->key("terminated_executor")
      .value(counters.terminated_executor.load(std::memory_order_relaxed));
  json->key("refused").value(counters.refused.load(std::memory_order_relaxed));
  json->key("running").value(core.executors->running());
  json->close('}');
  json->key("loops").open('[');
  for (const auto& loop : core.loops) {
    json->open('{');
    json->key("turns").value(loop->counters().turns.get());
    json->key("loop_runs").value(loop->counters().loop_runs.get());
    json->key("handed_over").value(loop->counters().handed_over.get());
    json->close('}');
  }
  json->close(']');
}

}  // namespace

void append_json_text(std::string* out, std::string_view text) {
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      out->append(escaped);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

std::string describe_version(const Version& version) {
  std::string out;
  Json json(&out);
  json.open('{');
  write_tensors(&json, "inputs", version.signature.inputs);
  write_tensors(&json, "outputs", version.signature.outputs);
  json.key("platform").text(version.platform);
  write_texts(&json, "providers", version.providers);
  write_texts(&json, "warnings", version.warnings);
  json.key("may_batch").boolean(version.may_batch);
  json.key("memory_bytes").value(version.memory_bytes);
  json.close('}');
  return out;
}

std::string Engine::snapshot() const {
  std::string out;
  Json json(&out);
  std::lock_guard<std::mutex> lock(mutex_);
  json.open('{');
  json.key("time_s").real(static_cast<double>(realtime_ns()) * 1e-9);
  json.key("uptime_s").real(
      started_ns_ == 0 ? 0.0 : static_cast<double>(monotonic_ns() - started_ns_) * 1e-9);
  json.key("generation").value(generation_);
  json.key("table_revision").text(tables_.empty() ? "" : tables_.back()->revision);
  json.key("tables").value(tables_.size());
  if (!is_stopped_) {
    write_server(&json, core_);
    write_refused(&json, core_);
    write_methods(&json, core_);
  }
  write_variants(&json, core_);
  write_upstreams(&json, core_);
  write_routed(&json, core_);
  write_shadows(&json, core_);
  write_tape(&json, core_);
  write_firsts(&json, core_.scopes);
  std::map<VersionKey, VersionTotals> totals;
  core_.cells.each_variant([&](const VariantEntry& entry) {
    add_totals(entry, &totals[{entry.model, entry.version}]);
  });
  json.key("versions").open('[');
  if (!is_stopped_) {
    for (const auto& item : versions_) {
      write_version(&json, *item.second, totals[item.first], *core_.executors);
    }
  }
  json.close(']');
  json.close('}');
  return out;
}

}  // namespace router
