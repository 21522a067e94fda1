// From a picture to what a model takes in, as a manifest's `preprocessing` says.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "picture.hpp"

// Returns (C, S, S). Throws std::runtime_error where the picture is none that the model takes.
std::vector<float> prepare(Picture picture, const nlohmann::json& how);
