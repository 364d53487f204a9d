// Writes JSON by appending, for snapshots. Strings are UTF-8 as they came.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace router {

void append_json_text(std::string* out, std::string_view text);  // snapshot.cc

// Commas are put where a value follows another.
class Json {
 public:
  explicit Json(std::string* out) : out_(out) {}

  Json& key(const char* name) {
    comma();
    append_json_text(out_, name);
    out_->push_back(':');
    is_first_ = true;
    return *this;
  }
  void open(char bracket) {
    comma();
    out_->push_back(bracket);
    is_first_ = true;
  }
  void close(char bracket) {
    out_->push_back(bracket);
    is_first_ = false;
  }
  void value(uint64_t number) {
    comma();
    out_->append(std::to_string(number));
  }
  void number(int64_t number) {
    comma();
    out_->append(std::to_string(number));
  }
  void real(double number) {
    comma();
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", std::isfinite(number) ? number : 0.0);
    out_->append(text);
  }
  void text(std::string_view value) {
    comma();
    append_json_text(out_, value);
  }
  // JSON made elsewhere.
  void raw(const std::string& json) {
    comma();
    out_->append(json);
  }
  void boolean(bool value) {
    comma();
    out_->append(value ? "true" : "false");
  }

 private:
  void comma() {
    if (!is_first_) out_->push_back(',');
    is_first_ = false;
  }
  std::string* out_;
  bool is_first_ = true;
};

}  // namespace router
