// Classifies pictures with a bundle and OpenVINO: classify BUNDLE FILE... [--json] [--inputs FILE]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

#include "bundle.hpp"
#include "picture.hpp"
#include "preprocessing.hpp"

namespace {

using nlohmann::json;

class Model {
public:
    explicit Model(const Bundle& bundle) : shape_{1}, num_classes_(bundle.outputs.size) {
        const auto& shape = bundle.manifest.at("inputs").at(0).at("shape");
        for (std::size_t i = 1; i < shape.size(); ++i) shape_.push_back(shape[i]);
        // Without the hint OpenVINO computes with 16 bits where a processor has instructions for it.
        request_ = core_.compile_model((bundle.folder / "model.onnx").string(), "CPU",
                                       ov::hint::inference_precision(ov::element::f32), ov::inference_num_threads(1))
                       .create_infer_request();
    }

    // From `num` images, which begin at `images`, to their logits, one image after another.
    std::vector<float> run(const float* images, std::size_t num) {
        shape_[0] = num;
        ov::Tensor input(ov::element::f32, shape_);
        std::copy(images, images + input.get_size(), input.data<float>());
        request_.set_input_tensor(input);
        request_.infer();
        const ov::Tensor output = request_.get_output_tensor();
        if (output.get_size() != num * num_classes_) throw std::runtime_error("the model has other outputs");
        return {output.data<const float>(), output.data<const float>() + output.get_size()};
    }

private:
    ov::Core core_;
    ov::InferRequest request_;
    ov::Shape shape_;
    std::size_t num_classes_;
};

std::size_t index_of_largest(const float* logits, std::size_t num) {
    return std::max_element(logits, logits + num) - logits;
}

// Says how far outputs are from the recorded ones: of each image alone, and of all at once if they may be.
json compare(Model& model, const Bundle& bundle) {
    const Array& inputs = bundle.inputs;
    const Array& outputs = bundle.outputs;
    std::vector<std::size_t> batches = {1};
    if (bundle.manifest.at("inputs").at(0).at("shape").at(0).is_string()) batches.push_back(inputs.num);
    double max_abs_diff = 0, max_scaled_diff = 0;
    bool is_finite = true;
    std::vector<bool> is_same_class(inputs.num, true);
    for (std::size_t batch : batches) {
        for (std::size_t first = 0; first < inputs.num; first += batch) {
            const auto logits = model.run(&inputs.data[first * inputs.size], batch);
            for (std::size_t i = 0; i < batch; ++i) {
                const float* recorded = &outputs.data[(first + i) * outputs.size];
                const float* computed = &logits[i * outputs.size];
                double difference = 0, scale = 1;
                for (std::size_t k = 0; k < outputs.size; ++k) {
                    is_finite = is_finite && std::isfinite(computed[k]);
                    difference = std::max(difference, std::abs(static_cast<double>(computed[k]) - recorded[k]));
                    scale = std::max(scale, std::abs(static_cast<double>(recorded[k])));
                }
                max_abs_diff = std::max(max_abs_diff, difference);
                // Relative to the image's largest absolute logit above 1.
                max_scaled_diff = std::max(max_scaled_diff, difference / scale);
                if (index_of_largest(computed, outputs.size) != index_of_largest(recorded, outputs.size)) {
                    is_same_class[first + i] = false;
                }
            }
        }
    }
    const double tolerance = bundle.manifest.at("models").at("onnx-fp32").at("gate").at("tolerance");
    const std::size_t num_same_class = std::count(is_same_class.begin(), is_same_class.end(), true);
    return {{"num_inputs", inputs.num},
            {"max_abs_diff", max_abs_diff},
            {"max_scaled_diff", max_scaled_diff},
            {"tolerance", tolerance},
            {"num_same_class", num_same_class},
            {"passed", is_finite && max_scaled_diff <= tolerance && num_same_class == inputs.num}};
}

json answer_of(const std::string& file, const std::vector<float>& logits, const json& classes) {
    const std::size_t index = index_of_largest(logits.data(), logits.size());
    double sum = 0;
    for (float logit : logits) sum += std::exp(static_cast<double>(logit) - logits[index]);
    json answer = {{"file", file}, {"class", classes.at(index)}, {"index", index}, {"probability", 1 / sum}};
    answer["logits"] = logits;
    return answer;
}

int run(int argc, char** argv) {
    std::vector<std::string> words;
    std::string inputs_file;
    bool is_json = false;
    for (int i = 1; i < argc; ++i) {
        if (!std::strcmp(argv[i], "--json")) {
            is_json = true;
        } else if (!std::strcmp(argv[i], "--inputs") && i + 1 < argc) {
            inputs_file = argv[++i];
        } else {
            words.emplace_back(argv[i]);
        }
    }
    if (words.empty()) throw std::runtime_error("expected the folder of a bundle");

    const Bundle bundle = open_bundle(words[0]);
    Model model(bundle);
    const json parity = compare(model, bundle);
    json images = json::array();
    std::vector<float> inputs;
    for (std::size_t i = 1; i < words.size(); ++i) {
        const auto prepared = prepare(read_picture(words[i]), bundle.manifest.at("preprocessing"));
        images.push_back(answer_of(words[i], model.run(prepared.data(), 1), bundle.manifest.at("classes")));
        if (!inputs_file.empty()) inputs.insert(inputs.end(), prepared.begin(), prepared.end());
    }

    if (!inputs_file.empty()) {
        std::ofstream file(inputs_file, std::ios::binary);
        file.write(reinterpret_cast<const char*>(inputs.data()), inputs.size() * sizeof(float));
        if (!file.flush()) throw std::runtime_error("cannot write " + inputs_file);
    }
    if (is_json) {
        std::cout << json{{"parity", parity}, {"images", images}} << "\n";
    } else {
        std::printf("parity  %d recorded images: largest difference %.1e, scaled %.1e (allowed %g), same class of %d\n",
                    parity["num_inputs"].get<int>(), parity["max_abs_diff"].get<double>(),
                    parity["max_scaled_diff"].get<double>(), parity["tolerance"].get<double>(),
                    parity["num_same_class"].get<int>());
        for (const auto& image : images) {
            std::printf("%s  %s  %.1f %%\n", image["file"].get<std::string>().c_str(),
                        image["class"].get<std::string>().c_str(), 100 * image["probability"].get<double>());
        }
    }
    return parity["passed"] ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "classify: " << error.what() << "\n";
        return 1;
    }
}
