#include "serve/context.h"

#include <charconv>
#include <cmath>
#include <cstring>

namespace router {
namespace {

constexpr std::string_view kInputPrefix = "input.";

void set_text(fh_slot* slot, std::string_view text) {
  slot->kind = FH_BYTES;
  slot->data = reinterpret_cast<const uint8_t*>(text.data());
  slot->length = static_cast<uint32_t>(text.size());
}

void set_integer(fh_slot* slot, uint8_t kind, int64_t value) {
  slot->kind = kind;
  slot->integer = value;
}

void set_number(fh_slot* slot, double value) {
  slot->kind = FH_DOUBLE;
  slot->number = value;
}

template <typename T>
T load(ByteView bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

float half_to_float(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa != 0 ? NAN : INFINITY;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

float brain_to_float(uint16_t brain) {
  const uint32_t bits = static_cast<uint32_t>(brain) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Where the element starts in a tensor of texts: each is a length and its bytes.
size_t text_offset(ByteView bytes, uint64_t index) {
  size_t at = 0;
  for (; index != 0; --index) at += 4 + load<uint32_t>(bytes.substr(at));
  return at;
}

// An element of a tensor that has it.
void set_element(fh_slot* slot, const TensorView& tensor, uint64_t index) {
  const bool is_text = tensor.type == DataType::bytes;
  const ByteView bytes = tensor.bytes.substr(
      is_text ? text_offset(tensor.bytes, index) : index * datatype_size(tensor.type));
  switch (tensor.type) {
    case DataType::boolean: return set_integer(slot, FH_BOOL, bytes[0] != 0);
    case DataType::uint8: return set_integer(slot, FH_INT, load<uint8_t>(bytes));
    case DataType::uint16: return set_integer(slot, FH_INT, load<uint16_t>(bytes));
    case DataType::uint32: return set_integer(slot, FH_INT, load<uint32_t>(bytes));
    case DataType::uint64: {
      const auto value = load<uint64_t>(bytes);
      if (value > INT64_MAX) return set_number(slot, static_cast<double>(value));
      return set_integer(slot, FH_INT, static_cast<int64_t>(value));
    }
    case DataType::int8: return set_integer(slot, FH_INT, load<int8_t>(bytes));
    case DataType::int16: return set_integer(slot, FH_INT, load<int16_t>(bytes));
    case DataType::int32: return set_integer(slot, FH_INT, load<int32_t>(bytes));
    case DataType::int64: return set_integer(slot, FH_INT, load<int64_t>(bytes));
    case DataType::fp16: return set_number(slot, half_to_float(load<uint16_t>(bytes)));
    case DataType::bf16: return set_number(slot, brain_to_float(load<uint16_t>(bytes)));
    case DataType::fp32: return set_number(slot, load<float>(bytes));
    case DataType::fp64: return set_number(slot, load<double>(bytes));
    case DataType::bytes: return set_text(slot, bytes.substr(4, load<uint32_t>(bytes)));
    case DataType::invalid: return;
  }
}

const Param* find_param(const InferRequest& request, std::string_view name) {
  for (const Param& param : request.params) {
    if (param.name == name) return &param;
  }
  return nullptr;
}

const TensorView* find_input(const InferRequest& request, std::string_view name) {
  for (const TensorView& input : request.inputs) {
    if (input.name == name) return input.elements == 0 ? nullptr : &input;
  }
  return nullptr;
}

// A row is what stands behind the first dimension; a vector is a row of its own.
uint64_t row_elements(const TensorView& tensor) {
  if (tensor.shape.rank < 2) return tensor.elements;
  return tensor.elements / static_cast<uint64_t>(tensor.shape.dims[0]);
}

// A feature is read from its tensor only: nobody can say another value beside it.
void set_feature(fh_slot* slot, const LiveTable& table, const fh_attribute& feature,
                 const InferRequest& request) {
  const TensorView* input = find_input(request, table.text(feature.tensor));
  if (input == nullptr || feature.index >= row_elements(*input)) return;
  set_element(slot, *input, feature.index);
}

void set_param(fh_slot* slot, const Param& param) {
  switch (param.kind) {
    case ParamKind::none: return;
    case ParamKind::boolean: return set_integer(slot, FH_BOOL, param.integer != 0);
    case ParamKind::integer: return set_integer(slot, FH_INT, param.integer);
    case ParamKind::text: return set_text(slot, param.text);
    case ParamKind::number: return set_number(slot, param.number);
    case ParamKind::unsigned_integer:
      if (param.integer < 0) {
        return set_number(slot, static_cast<double>(static_cast<uint64_t>(param.integer)));
      }
      return set_integer(slot, FH_INT, param.integer);
  }
}

// The text of a slot as a unit key; integers in decimal. Empty when it cannot be one.
std::string_view unit_text(const fh_slot& slot, ContextScratch* scratch) {
  if (slot.kind == FH_BYTES) {
    return {reinterpret_cast<const char*>(slot.data), slot.length};
  }
  if (slot.kind != FH_INT) return {};
  char* text = scratch->unit_text;
  const auto end = std::to_chars(text, text + sizeof scratch->unit_text, slot.integer);
  return {text, static_cast<size_t>(end.ptr - text)};
}

std::string_view param_unit(const InferRequest& request, std::string_view name,
                            ContextScratch* scratch) {
  const Param* param = find_param(request, name);
  if (param == nullptr) return {};
  fh_slot slot{};
  set_param(&slot, *param);
  return unit_text(slot, scratch);
}

}  // namespace

UnitKey find_unit(const LiveTable& table, const fh_model& model, const InferRequest& request,
                  const HeaderField* metadata, size_t count, ContextScratch* scratch) {
  const std::string_view named = param_unit(request, "targeting_key", scratch);
  if (!named.empty()) return {named, FH_UNIT_PARAMETER};
  for (uint32_t i = 0; i < model.unit_count; ++i) {
    const std::string_view key = table.text(table.view.unit_keys[model.unit_first + i]);
    for (size_t j = 0; j < count; ++j) {
      if (metadata[j].name == key && !metadata[j].value.empty()) {
        return {metadata[j].value, FH_UNIT_METADATA};
      }
    }
  }
  if (model.unit_tensor.length != 0) {
    const TensorView* input = find_input(request, table.text(model.unit_tensor));
    if (input != nullptr) {
      fh_slot slot{};
      set_element(&slot, *input, 0);
      const std::string_view text = unit_text(slot, scratch);
      if (!text.empty()) return {text, FH_UNIT_TENSOR};
    }
  }
  const std::string_view sequence = param_unit(request, "sequence_id", scratch);
  // Sequence 0 is the protocol's way to say there is none.
  if (!sequence.empty() && sequence != "0") return {sequence, FH_UNIT_SEQUENCE};
  return {};
}

void fill_slots(const LiveTable& table, const fh_model& model, const InferRequest& request,
                const HeaderField* metadata, size_t count, const UnitKey& unit,
                ContextScratch* scratch) {
  for (uint32_t i = 0; i < model.attribute_count; ++i) {
    fh_slot* slot = &scratch->slots[i];
    *slot = fh_slot{};
    const fh_attribute& attribute = table.view.attributes[model.attribute_first + i];
    if (attribute.source == FH_SOURCE_UNIT) {
      if (unit.source != FH_UNIT_NONE) set_text(slot, unit.bytes);
      continue;
    }
    if (attribute.source == FH_SOURCE_FEATURE) {
      set_feature(slot, table, attribute, request);
      continue;
    }
    const std::string_view name = table.text(attribute.name);
    const Param* param = name == kIdentityName ? nullptr : find_param(request, name);
    if (param != nullptr) {
      set_param(slot, *param);
      continue;
    }
    for (size_t j = 0; j < count; ++j) {
      if (metadata[j].name == name) {
        set_text(slot, metadata[j].value);
        break;
      }
    }
    if (slot->kind == FH_ABSENT && name.substr(0, kInputPrefix.size()) == kInputPrefix) {
      const TensorView* input = find_input(request, name.substr(kInputPrefix.size()));
      if (input != nullptr) set_element(slot, *input, 0);
    }
  }
}

}  // namespace router
